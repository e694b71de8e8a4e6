"""Promotion: the best checkpoint of a run as a registered model, and predictions with one."""
