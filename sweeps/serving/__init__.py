"""A run as a registered model, and predictions of it.

Start reading at `package.py`; `predictor.py` is what MLflow loads, in its own server too.
"""
