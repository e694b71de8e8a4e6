"""The base that every room may import: errors, messages between processes, paths, text, secrets, locks.

Imports nothing else of `sweeps`, and neither torch nor Optuna nor MLflow. Start reading at `messages.py`, the protocol
between the driver and the ranks.
"""
