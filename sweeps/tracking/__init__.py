"""The door to MLflow: what is recorded of runs, and how it is written and addressed.

The only room that imports MLflow, with the loader of registered models (`serving/predictor.py`). Start reading at
`recorder.py`.
"""
