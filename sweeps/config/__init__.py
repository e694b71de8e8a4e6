"""The configuration of a run: composed by Hydra, checked, frozen to a file, and instantiated.

The only room that imports Hydra. Start reading at `composer.py`; `schema.py` documents each fixed key.
"""
