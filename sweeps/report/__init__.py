"""The report of a study: advice in words, charts as plain data, one HTML page.

Start reading at `build.py`; a new chart is a function in one of the `*_charts.py` and a word in `CHARTS` there.
"""
