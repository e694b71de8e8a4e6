"""Models and data that configurations name by `_target_`; imports nothing from `sweeps`."""

__all__: list[str] = []
