"""`lightsweep completion`: print a shell's completion script, or the completions of a line."""

import argparse

from sweeps.cli.completion import complete, script
from sweeps.cli.parser import options

__all__ = ["run"]


def run(args: argparse.Namespace) -> int:
    """Print a script, or the completions of a line."""
    if args.line is None:
        print(script(args.shell))
    else:
        print("\n".join(complete(args.line, options())))
    return 0
