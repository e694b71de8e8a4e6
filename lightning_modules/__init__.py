"""Models and data that configurations name by `_target_`; knows nothing of `sweeps`."""

__all__: list[str] = []
