"""Lightning strategies: how the ranks of one trial share its work."""

__all__: list[str] = []
