"""Quote overrides of text keys, so that a value arrives as typed although Hydra would read it as a number.

Hydra's grammar reads `2024_11_30` and `1e3` as numbers and `true` as a boolean; by the time OmegaConf turns them into
text they are `20241130`, `1000.0` and `True`. Such values are quoted before Hydra reads them. `schema.py` says which
keys are text. `null` stays null.
"""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from sweeps.config import schema

__all__ = ["as_typed", "is_text"]

_KEEPING = {"choice", "shuffle", "str", "tag"}
"""the functions of the grammar that do not calculate with their arguments"""


def is_text(key: str) -> bool:
    """Tell whether the value of a dotted key is text by the schema, or a list or a dict of texts."""
    return _kind(key) is not None


def as_typed(override: str) -> str:
    """Return an override with quotes around what Hydra would read as another value than the text that is typed."""
    head, equals, expression = override.partition("=")
    kind = _kind(head.strip().lstrip("+~").partition("@")[0])
    if kind is None or not equals:
        return override
    quoted, done = "", 0
    for start, end, shown in _values(expression):
        if shown != expression[start:end] or kind is Any:
            quoted += f"{expression[done:start]}'{expression[start:end]}'"
            done = end
    return f"{head}={quoted}{expression[done:]}" if done else override


def _kind(key: str) -> Any:
    """Return the type of a key that is text, Any where only its meaning says so; None if it is not text."""
    keys = _text_keys()
    kind = keys.get(key)
    if kind is None:  # a dict of texts has any keys
        parent = keys.get(key.rpartition(".")[0])
        kind = str if get_origin(parent) is dict else None
    return kind


@cache
def _text_keys() -> dict[str, Any]:
    return dict(_texts_of(schema.SweepConfig, ""))


def _texts_of(config: type, prefix: str) -> Iterator[tuple[str, Any]]:
    types = get_type_hints(config)
    for field in fields(config):
        kind = types[field.name]
        if is_dataclass(kind) and isinstance(kind, type):
            yield from _texts_of(kind, f"{prefix}{field.name}.")
        elif kind in (str, list[str], dict[str, str]) or field.metadata.get("is_text"):
            yield f"{prefix}{field.name}", kind
        elif get_origin(kind) in (Union, UnionType) and set(get_args(kind)) == {str, type(None)}:
            yield f"{prefix}{field.name}", str


def _values(expression: str) -> Iterator[tuple[int, int, str]]:
    """Yield where a number or a truth value is all there is between two commas or brackets, and OmegaConf's text of it.

    Keys of dicts and arguments of functions that calculate are left out.
    """
    from antlr4 import InputStream  # type: ignore[import-untyped]
    from hydra.grammar.gen.OverrideLexer import OverrideLexer as Lexer

    lexer = Lexer(InputStream(expression))
    lexer.removeErrorListeners()  # what cannot be read is for Hydra to say
    lexer.mode(Lexer.VALUE_MODE)
    tokens = [token for token in lexer.getAllTokens() if token.type != Lexer.WS]
    opening = (Lexer.BRACKET_OPEN, Lexer.BRACE_OPEN, Lexer.POPEN)
    closing = (Lexer.BRACKET_CLOSE, Lexer.BRACE_CLOSE, Lexer.PCLOSE)
    open_: list[str] = []
    begins = True  # whether a value begins with the next token
    awaits_key = False  # whether the next colon ends the key of a dict
    for index, token in enumerate(tokens):
        after = tokens[index + 1].type if index + 1 < len(tokens) else None
        is_whole = begins and not awaits_key and after in (None, Lexer.COMMA, *closing)
        if is_whole and _KEEPING.issuperset(name for name in open_ if name not in "[{"):
            if token.type in (Lexer.INT, Lexer.FLOAT):
                number = int(token.text) if token.type == Lexer.INT else float(token.text)
                yield token.start, token.stop + 1, str(number)
            elif token.type == Lexer.BOOL:
                yield token.start, token.stop + 1, str(token.text.lower() == "true")
        if token.type in opening:
            is_function = token.type == Lexer.POPEN
            open_.append(tokens[index - 1].text if is_function and index else token.text[0])
        elif token.type in closing and open_:
            open_.pop()
        is_key_end = awaits_key and token.type == Lexer.COLON
        begins = token.type in (*opening, Lexer.COMMA, Lexer.EQUAL) or is_key_end
        if token.type in (Lexer.BRACE_OPEN, Lexer.COMMA):
            awaits_key = bool(open_) and open_[-1] == "{"
        elif is_key_end or token.type in (Lexer.BRACKET_OPEN, Lexer.POPEN):
            awaits_key = False
