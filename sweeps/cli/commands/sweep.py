"""`lightsweep sweep` and `resume`: run a search and print its summary."""

import argparse

from sweeps.cli.arguments import command_line, print_config

__all__ = ["run", "run_resume"]


def run(args: argparse.Namespace) -> int:
    """Start a study, or continue one of the same name."""
    if args.cfg:
        return print_config(args)
    from sweeps.cli.reporter import ConsoleReporter
    from sweeps.cli.summary import conclude
    from sweeps.driver.sweep import sweep

    reporter = ConsoleReporter()
    return conclude(sweep(command_line(args), reporter, migrates=args.migrate), reporter.console)


def run_resume(args: argparse.Namespace) -> int:
    """Continue a study by its name."""
    from sweeps.cli.reporter import ConsoleReporter
    from sweeps.cli.summary import conclude
    from sweeps.driver.sweep import resume

    reporter = ConsoleReporter()
    result = resume(args.study, args.store_dir, reporter, args.overrides, migrates=args.migrate)
    return conclude(result, reporter.console)
