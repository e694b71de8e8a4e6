"""The command line and the terminal: parser, completion, tables, live view, one module per command.

The only room that imports rich. Start reading at `main.py`; `parser.py` has all commands and options.
"""
