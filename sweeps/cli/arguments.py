"""Read parsed arguments that several commands share; heavy imports wait until they are needed."""

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweeps.driver.session import CommandLine

__all__ = ["INTERRUPTED", "command_line", "of_run", "print_config", "uri_of"]

INTERRUPTED = 130
"""The exit status that shells expect after Ctrl-C."""


def command_line(args: argparse.Namespace) -> "CommandLine":
    """Return what was given as configuration."""
    from sweeps.driver.session import CommandLine

    return CommandLine(overrides=tuple(args.overrides), config_name=args.config_name, config_dir=args.config_dir)


def print_config(args: argparse.Namespace) -> int:
    """Print the composed configuration, for `--cfg`."""
    from sweeps.config.composer import Composer, to_yaml
    from sweeps.search.space.declare import split_overrides

    plain, _ = split_overrides(args.overrides)
    public = Composer(args.config_name, plain, args.config_dir).shown(resolves=args.resolve)
    print(to_yaml(public), end="")
    return 0


def of_run(args: argparse.Namespace) -> dict[str, Any]:
    """Return the fields that all kinds of `RunRequest` have in common."""
    return {
        "run": args.run,
        "uri": args.uri,
        "store_dir": args.store_dir,
        "config_dir": args.config_dir,
        "allowed_modules": tuple(args.allow),
        "overrides": tuple(args.overrides),
    }


def uri_of(args: argparse.Namespace) -> str:
    """Return the address of the store."""
    from sweeps.core.urls import default_uri

    return args.uri or default_uri(args.store_dir)
