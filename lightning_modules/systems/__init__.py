"""LightningModules: they define the loss, the metrics and the logging."""

__all__: list[str] = []
