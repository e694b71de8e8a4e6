"""`lightsweep enqueue` and `stop`: queue a command to a study, and print the effect."""

import argparse

__all__ = ["run_enqueue", "run_stop"]


def run_enqueue(args: argparse.Namespace) -> int:
    """Queue a trial with the given values."""
    from sweeps.driver.steer import enqueue

    print(enqueue(args.study, args.store_dir, args.values))
    return 0


def run_stop(args: argparse.Namespace) -> int:
    """Stop a running study."""
    from sweeps.driver.steer import stop

    print(stop(args.study, args.store_dir, is_now=args.now))
    return 0
