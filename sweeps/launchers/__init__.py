"""How the driver starts ranks."""

__all__: list[str] = []
