"""Compose, drive, record and compare hyperparameter sweeps over Lightning modules."""

__all__: list[str] = []
