"""What every room may use: errors, the messages between processes, paths, texts, secrets, locks.

Imports nothing else of `sweeps`, and neither torch nor Optuna nor MLflow. Start reading at `messages.py`, the protocol
between the driver and the ranks.
"""
