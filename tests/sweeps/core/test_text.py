"""Texts of users stay what they are in Markdown."""

from html.parser import HTMLParser

import pytest
from markdown_it import MarkdownIt

from sweeps.core.text import code_block, escaped, link, table

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
