"""Search spaces: Hydra's sweep expressions, read by Hydra's parser, as distributions, and back.

Start reading at `space.py`; `declare.py` makes a space of overrides. Optuna is imported only where a distribution of
its own is asked for.
"""
