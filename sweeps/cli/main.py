"""The command line: parse, dispatch to a module of `commands`, and print errors. Imports nothing heavy itself."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from sweeps.cli.arguments import INTERRUPTED
from sweeps.cli.parser import make_parser, parsed
from sweeps.core.errors import LightsweepError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0, 1 for a failure, 2 for a usage error, 130 after Ctrl-C."""
    args = parsed(arguments)
    try:
        status = _run(args)
        sys.stdout.flush()  # here, where a closed pipe is caught
    except LightsweepError as error:
        if args.debug:
            raise
        print(f"lightsweep: {_harmless(str(error), args)}", file=sys.stderr)
        return error.exit_status
    except BrokenPipeError:  # `lightsweep compare | head -1` has what it wants
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0 if args.command in ("compare", "show", "diff", "report", "predict") else 1
    except Exception as error:  # a full disk, a folder that may not be written; else a fault of ours
        if args.debug:
            raise
        if isinstance(error, OSError) and error.filename is not None:
            print(f"lightsweep: {error.filename}: {error.strerror}.", file=sys.stderr)
        else:
            print(f"lightsweep: {_unforeseen(error, args)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lightsweep: interrupted.", file=sys.stderr)
        return INTERRUPTED
    return status


def _unforeseen(error: Exception, args: argparse.Namespace) -> str:
    """Return one line on an error that nobody has foreseen: what it is, where it was raised, and how to see more."""
    import traceback

    from sweeps.core.failure_text import one_line

    last = traceback.extract_tb(error.__traceback__)[-1]
    line = one_line(error, lambda text: _harmless(text, args))
    place = "" if last.filename in line else f"raised in {last.filename}, line {last.lineno}; "
    return f"{line} ({place}--debug shows the traceback)"


def _harmless(message: str, args: argparse.Namespace) -> str:
    """Hide in a message what is secret in the overrides that were typed or in the environment, and what steers."""
    from sweeps.core.secrets import Secrets
    from sweeps.core.text import plain_lines
    from sweeps.search.space.typed_secrets import typed_secrets

    secrets = Secrets()
    secrets.add(typed_secrets(getattr(args, "overrides", ())))
    return plain_lines(secrets.hide(message))


# --- the commands --------------------------------------------------------------------------------------


def _no_command(args: argparse.Namespace) -> int:
    if args.version:
        from importlib.metadata import version

        print(f"lightsweep {version('lightsweep')}")
        return 0
    make_parser().print_help()
    return 2


_COMMANDS: dict[str, str] = {
    "train": "train.run",
    "sweep": "sweep.run",
    "check": "check.run",
    "resume": "sweep.run_resume",
    "enqueue": "steer.run_enqueue",
    "stop": "steer.run_stop",
    "compare": "compare.run",
    "show": "show.run",
    "diff": "diff.run",
    "report": "report.run",
    "reproduce": "reproduce.run",
    "export": "export.run",
    "promote": "promote.run",
    "predict": "predict.run",
    "ui": "ui.run",
    "completion": "completion.run",
    "help": "help.run",
}
"""The function in `sweeps/cli/commands` of each command; its module is imported when it is called."""


def _run(args: argparse.Namespace) -> int:
    if not args.command:
        return _no_command(args)
    module, _, function = _COMMANDS[args.command].partition(".")
    status: int = getattr(import_module(f"sweeps.cli.commands.{module}"), function)(args)
    return status
