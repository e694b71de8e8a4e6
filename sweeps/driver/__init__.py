"""The loop of a command: ask, lease a slot, start a trial, handle its messages, tell. The only writer to a store.

Imports no torch. Start reading at `driver.py`.
"""
