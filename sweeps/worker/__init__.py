"""The code of a rank: build the modules, train, report, save.

The only room that imports torch and Lightning, with the loader of registered models. A rank reads one frozen
configuration, opens no database, and talks to the driver over one pipe. Start reading at `main.py`.
"""
