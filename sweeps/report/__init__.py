"""The report on a study: charts as plain data, drawn by plotly in one HTML file and by matplotlib as PNG."""

__all__: list[str] = []
