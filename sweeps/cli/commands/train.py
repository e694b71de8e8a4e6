"""`lightsweep train`: train one run."""

import argparse

from sweeps.cli.arguments import INTERRUPTED, command_line, print_config

__all__ = ["run"]


def run(args: argparse.Namespace) -> int:
    """Train, print how it ended, and return the exit status."""
    if args.cfg:
        return print_config(args)
    from sweeps.cli.live import warn_unsent
    from sweeps.cli.reporter import ConsoleReporter
    from sweeps.core.text import number
    from sweeps.driver.train import train

    reporter = ConsoleReporter()
    echo = reporter.echo
    result = train(command_line(args), reporter)
    warn_unsent(result.unsent, reporter.console, is_sweep=False)
    outcome = result.outcome
    if result.is_non_zero_rank and outcome is not None and outcome.state == "complete":
        return 0
    if outcome is None or outcome.state == "interrupted":
        if not result.is_non_zero_rank:
            echo("Interrupted. All recorded results are saved.")
        return INTERRUPTED
    if outcome.state == "failed":
        if result.is_non_zero_rank:  # rank 0 has a display for that
            echo(outcome.reason)
        echo(f"The log is in {result.folder}.")
        return 1
    for key, value in sorted(outcome.metrics.items()):
        echo(f"  {key:<16} {number(value)}")
    echo(f"run {result.run_id}  in {result.folder}")
    return 0
