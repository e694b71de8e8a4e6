"""Record runs in MLflow."""

__all__: list[str] = []
