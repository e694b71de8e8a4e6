"""One module for each command; `sweeps/cli/main.py` dispatches to them."""
