"""`lightsweep check`: dry-run the corners of a search space and print the findings."""

import argparse
import sys

from sweeps.cli.arguments import command_line, print_config

__all__ = ["run"]


def run(args: argparse.Namespace) -> int:
    """Check a command line and print the report."""
    if args.cfg:
        return print_config(args)
    from sweeps.cli.preflight_report import print_report
    from sweeps.cli.reporter import ConsoleReporter
    from sweeps.driver.dry_run import dry_run

    reporter = ConsoleReporter()
    result = dry_run(command_line(args), reporter)
    print_report(result.report, args.format, title=result.title, console=reporter.console, out=sys.stdout)
    return 0
