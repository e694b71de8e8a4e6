"""Reproduction: what a training leaves so that another one can be proved equal, how that is read back and judged."""
