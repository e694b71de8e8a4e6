"""Search spaces: Hydra's sweep expressions, read by Hydra's parser, as Optuna's distributions, and back.

Start reading at `space.py`; `declare.py` builds a space from overrides. Optuna is imported only when a distribution is
asked for.
"""
