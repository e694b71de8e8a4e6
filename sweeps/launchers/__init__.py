"""How ranks are started and watched: slots, the preloaded server, groups of ranks.

Imports no torch; the server that is preloaded does. Start reading at `local.py`.
"""
