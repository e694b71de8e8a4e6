"""`lightsweep reproduce`: train a recorded run again, and prove it equal or report where it diverges, and why."""

import argparse
import json
import shlex
import sys

from rich.console import Console

from sweeps.cli.arguments import INTERRUPTED, of_run
from sweeps.cli.commands.reproduce_isolated import Isolation, reproduce_isolated
from sweeps.cli.live import warn_unsent
from sweeps.cli.reporter import ConsoleReporter
from sweeps.driver.display import Display, Heading
from sweeps.driver.reproduce import ReproduceRequest, Reproduction, reproduce
from sweeps.reproduce.original import IncompleteError

__all__ = ["print_reproduction", "run"]


class _QuietReporter(ConsoleReporter):
    """Shows that something is prepared, and nothing else."""

    def echo(self, text: str) -> None:
        """Print nothing."""

    def display(self, heading: Heading) -> Display:
        """Show nothing."""
        return Display()


def run(args: argparse.Namespace) -> int:
    """Retrain a run, print the verdict, and return its exit status."""
    request = ReproduceRequest(**of_run(args), epochs=args.epochs, threads=args.threads, start_method=args.start_method)
    is_json = args.format == "json"
    reporter = _QuietReporter() if is_json else ConsoleReporter()
    try:
        if args.at_commit or args.in_env:
            isolation = Isolation(at_commit=args.at_commit, in_env=args.in_env, agrees=args.yes or None)
            return reproduce_isolated(request, isolation, is_json=is_json, say=_say_on_stderr)
        result = reproduce(request, reporter)
    except IncompleteError as error:
        result = Reproduction.impossible(request.run, error)
    if is_json:
        print(json.dumps(result.as_dict(), indent=2))
    print_reproduction(result, request, reporter.console, is_quiet=is_json)
    if result.outcome is not None and result.outcome.state == "interrupted":
        return INTERRUPTED
    return result.verdict.exit_status


def _say_on_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # not by rich, which would take the brackets of a patch for markup


def print_reproduction(
    found: Reproduction, request: ReproduceRequest, console: Console, *, is_quiet: bool = False
) -> None:
    """Say where it is, what it has shown, and what to type next; if `is_quiet`, only what was not recorded."""
    if found.folder is not None:
        warn_unsent(found.unsent, console, is_sweep=False)
    if is_quiet:
        return

    def say(text: str, style: str = "") -> None:
        console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    if found.folder is not None:
        say(f"run {found.run_id}  in {found.folder}")
    verdict = found.verdict
    style = {"exact": "bold green", "diverged": "bold red"}.get(verdict.kind, "bold yellow")
    say(f"{verdict.kind}: {verdict.reason}", style)
    if verdict.kind == "exact" and found.is_whole:
        register = f"lightsweep promote {shlex.quote(request.run)} --name NAME --require-reproduced"
        say(f"To register it: {register}{request.options()}")
