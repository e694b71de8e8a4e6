"""Print what a command reports besides its result: progress, warnings and the live view."""

from contextlib import AbstractContextManager

from rich.console import Console

from sweeps.cli.console import SafeConsole, preparing
from sweeps.cli.live import make_display
from sweeps.cli.preflight_report import print_warnings
from sweeps.driver.display import Display, Heading
from sweeps.driver.preflight_report import CheckReport
from sweeps.driver.session import Reporter

__all__ = ["ConsoleReporter"]


class ConsoleReporter(Reporter):
    """Prints to a console; in a terminal the trials have a live view."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = SafeConsole() if console is None else console

    def preparing(self) -> AbstractContextManager[object]:
        """Say in a terminal what takes some seconds."""
        return preparing(self.console)

    def echo(self, text: str) -> None:
        """Print a line as it is."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def warn(self, report: CheckReport) -> None:
        """Print a line for each warning."""
        print_warnings(report, self.console)

    def display(self, heading: Heading) -> Display:
        """Open the live view in a terminal, and lines for anything else."""
        return make_display(heading, self.console)
