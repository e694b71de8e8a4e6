"""Orders as files: whole, in sequence, and there until they are forgotten."""

import multiprocessing
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sweeps.driver.inbox import Enqueue, Inbox, StopCommand, Unreadable

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
VALUES = st.dictionaries(st.text(min_size=1), SCALARS | st.lists(SCALARS), max_size=4)


@given(VALUES)
def test_values_arrive_as_they_were_sent(tmp_path_factory: Any, values: dict[str, Any]) -> None:
    inbox = Inbox(tmp_path_factory.mktemp("study"))
    inbox.write(Enqueue(values=values))
    (command,) = inbox.read()
    assert isinstance(command.order, Enqueue)
    assert command.order.values == values
    assert [type(value) for value in command.order.values.values()] == [type(value) for value in values.values()]


def test_orders_are_read_in_the_sequence_written_until_they_are_forgotten(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path)
    orders = [Enqueue(values={"depth": depth}) for depth in range(20)]
    names = [inbox.write(order) for order in orders]
    assert [command.order for command in inbox.read()] == orders
    inbox.forget(names[0])
    inbox.forget(names[0])
    assert not inbox.holds(names[0]) and inbox.holds(names[1])
    assert [command.order for command in inbox.read()] == orders[1:]


def test_a_clock_that_was_set_back_changes_no_sequence(tmp_path: Path) -> None:
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox" / f"{2**62:020d}-later.yaml").write_text("order: halt\nis_now: true\n")
    Inbox(tmp_path).write(StopCommand(is_now=False))
    assert [command.order for command in Inbox(tmp_path).read()] == [
        StopCommand(is_now=True),
        StopCommand(is_now=False),
    ]


def test_what_is_no_order_is_said_to_be_none_and_can_be_put_aside(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path)
    assert inbox.read() == []
    (tmp_path / "inbox").mkdir()
    for name, text in (("1-a", "{broken"), ("2-b", "order: dance"), ("3-c", "order: enqueue\nvalues: 3")):
        (tmp_path / "inbox" / f"{name}.yaml").write_text(text)
    commands = inbox.read()
    assert [type(command.order) for command in commands] == [Unreadable] * 3
    kept = [inbox.refuse(command.name) for command in commands]
    assert inbox.read() == [] and all(path.exists() for path in kept)


def write_twenty(folder: Path) -> None:
    for number in range(20):
        Inbox(folder).write(Enqueue(values={"number": number, "text": "x" * 10_000}))


def test_a_reader_sees_whole_orders_while_others_write(tmp_path: Path) -> None:
    writers = [multiprocessing.get_context("fork").Process(target=write_twenty, args=(tmp_path,)) for _ in range(3)]
    for writer in writers:
        writer.start()
    inbox, seen = Inbox(tmp_path), set()
    while len(seen) < 60 and (any(writer.is_alive() for writer in writers) or inbox.read()):
        for command in inbox.read():
            assert isinstance(command.order, Enqueue)
            seen.add(command.name)
    assert len(seen) == 60
