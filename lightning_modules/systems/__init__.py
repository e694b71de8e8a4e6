"""LightningModules: what is minimised, measured and logged."""

__all__: list[str] = []
