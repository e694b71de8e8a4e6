"""Lightning strategies: how the ranks of one trial divide the work."""

__all__: list[str] = []
