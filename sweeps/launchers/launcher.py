"""The base class of launchers, which start the processes of a trial."""

from sweeps.core.messages import Event, Order, RankJob

__all__ = ["Launcher"]


class Launcher:
    """Starts ranks, and carries their events to the driver and its orders to them; see `LocalLauncher`."""

    def prepare(self, num_ranks: int = 1) -> None:
        """Expect another start soon."""

    def start(self, number: int, job: RankJob, num_ranks: int = 1) -> None:
        """Start the ranks of a trial."""

    def poll(self, timeout_s: float) -> list[tuple[int, Event]]:
        """Wait for events, and return each with the number of its trial."""
        return []

    def order(self, number: int, order: Order) -> None:
        """Send an order."""

    def kill(self, number: int) -> None:
        """End a trial at once."""
