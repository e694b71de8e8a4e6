"""Plain torch modules that map inputs to class scores."""

__all__: list[str] = []
