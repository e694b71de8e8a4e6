"""Data for Lightning: images in whole tensors, split, batched and dealt to ranks."""

__all__: list[str] = []
