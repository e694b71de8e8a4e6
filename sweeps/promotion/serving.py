"""The loader module that models registered by earlier versions name; MLflow imports it by this name."""

from sweeps.serving.predictor import _load_pyfunc

__all__ = ["_load_pyfunc"]
