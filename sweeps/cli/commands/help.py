"""`lightsweep help TOPIC`: explain a command, the configuration, or the names of runs."""

import argparse
from difflib import get_close_matches

from sweeps.cli.parser import make_parser, topics
from sweeps.core.errors import UsageError

__all__ = ["run", "text_on"]


def text_on(topic: str | None) -> str:
    """Return the help on a topic; the overview if there is none.

    Raises:
        UsageError: There is no such topic.
    """
    if topic is None:
        return make_parser().format_help()
    known = topics()
    if topic not in known:
        near = get_close_matches(topic, known, 1)
        hint = f" Did you mean {near[0]!r}?" if near else f" Topics: {', '.join(known)}."
        raise UsageError(f"help: {topic!r} is not a command or a topic.{hint}")
    return known[topic]()


def run(args: argparse.Namespace) -> int:
    """Print what a topic explains."""
    print(text_on(args.topic), end="")
    return 0
