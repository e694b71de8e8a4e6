"""Names and numbers for people; texts of users stay text in Markdown."""

from html.parser import HTMLParser

import pytest
from markdown_it import MarkdownIt

from sweeps.core.text import (
    brief,
    code_block,
    duration,
    escaped,
    link,
    number,
    run_name,
    short_names,
    table,
    values_text,
)

NASTY = [
    "a*b*c",
    "_x_ __y__",
    "<script>alert(1)</script>",
    "[a](javascript:alert(1))",
    "`code` ``",
    "a | b",
    "back\\slash",
    "&lt; &",
    "~~gone~~",
    "# no heading",
    "![image](x)",
    "two\nlines",
]


class Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.text, self.tags = "", list[str]()

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)


def shown(markdown: str) -> Text:
    parsed = Text()
    parsed.feed(MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(markdown))
    return parsed


@pytest.mark.parametrize("text", NASTY)
def test_what_is_shown_is_the_text(text: str) -> None:
    page = shown(f"see {escaped(text)} there")
    assert page.tags == ["p"] and page.text.strip() == f"see {' '.join(text.split())} there"


@pytest.mark.parametrize("text", NASTY)
def test_a_cell_keeps_its_text(text: str) -> None:
    page = shown(table(["a", "b"], [[escaped(text), "1"]]))
    assert page.tags.count("td") == 2 and " ".join(text.split()) in page.text


@pytest.mark.parametrize("text", ["```", "a ```` b", "plain", "two\nlines"])
def test_code_stays_in_its_block(text: str) -> None:
    page = shown(code_block([text, "last"]))
    assert page.tags == ["pre", "code"] and page.text.rstrip("\n") == f"{' '.join(text.split())}\nlast"


def test_a_link_without_an_address_is_its_text() -> None:
    assert link("x", None) == "x" and link("x", "#/y") == "[x](#/y)"


def test_short_name_is_the_last_word() -> None:
    assert short_names(["optimizer.lr", "model.depth"]) == {"optimizer.lr": "lr", "model.depth": "depth"}


def test_short_names_tell_keys_apart() -> None:
    names = short_names(["optimizer.lr", "scheduler.lr", "a.optimizer.lr", "lr"])

    assert len(set(names.values())) == 4
    assert names["scheduler.lr"] == "scheduler.lr" and names["a.optimizer.lr"] == "a.optimizer.lr"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.00312345, "0.003123"), (3, "3"), (True, "True"), ("relu", "relu"), (None, "None"), ([1, 2], "[1, 2]")],
)
def test_number_has_four_digits(value: object, text: str) -> None:
    assert number(value) == text


def test_run_name_says_what_was_tried() -> None:
    assert run_name(12, {"optimizer.lr": 0.0031, "model.depth": 3}) == "#12 lr=0.0031 depth=3"
    assert run_name(0, {}) == "#0"
    assert len(run_name(1, {f"model.key_{index}": index for index in range(99)})) <= 200


def test_values_text_is_empty_without_values() -> None:
    assert values_text({}) == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (9.94, "9.9 s"), (42.4, "42 s"), (61, "1 min 01 s"), (3599, "59 min 59 s"), (7800, "2 h 10 min")],
)
def test_duration_reads_well(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize("seconds", [9.96, 59.7, 3599.8])
def test_duration_never_rounds_to_a_full_unit(seconds: float) -> None:
    assert not duration(seconds).startswith(("10.0 s", "60 s", "60 min"))


def test_long_texts_are_brief_and_stay_apart() -> None:
    assert brief("x" * 100) == "x" * 100
    one, other = brief("x" * 5000 + "a"), brief("x" * 5000 + "b")
    assert one != other and len(one) == len(other) == 100 and "5,001 characters" in one
    assert len(values_text({"model.prompt": "x" * 5000, "model.lr": 0.1})) < 150
