"""The interface to MLflow: record runs, write them to a store, and address them.

The only room that imports MLflow, with the loader of registered models (`serving/predictor.py`). Start reading at
`recorder.py`.
"""
