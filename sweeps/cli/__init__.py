"""What is given on the command line and printed: parser, completion, tables, live view, a module for each command.

The only room that imports rich. Start reading at `main.py`; `parser.py` has all commands and options.
"""
