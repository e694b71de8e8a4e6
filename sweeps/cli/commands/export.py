"""`lightsweep export`: write everything needed to reproduce a run elsewhere."""

import argparse
import shlex

from sweeps.cli.arguments import uri_of

__all__ = ["run"]


def run(args: argparse.Namespace) -> int:
    """Export a run, and print how to reproduce it."""
    from sweeps.reproduce.export import export

    original = export(args.run, args.target, uri=uri_of(args), store_dir=args.store_dir)
    print(
        f"{original.name} is in {args.target}. To train it again: lightsweep reproduce {shlex.quote(str(args.target))}"
    )
    return 0
