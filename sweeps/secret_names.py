"""Which keys, variables and parts of an address are called like something secret."""

import re
from functools import cache

__all__ = ["is_secret"]

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_ENDS = re.compile(r"(password|passwd|passphrase|secret|apikey|credential)s?$|^(pwd|pw|authorization|bearer)$")
_KINDS_OF_KEY = {
    *("api", "access", "secret", "private", "account", "auth", "encryption", "license", "master", "service"),
    *("session", "shared", "signing", "ssh", "storage", "subscription", "deploy"),
}
_TOKENS_OF_TEXT = {  # what language models call tokens
    *("pad", "eos", "bos", "unk", "mask", "sep", "cls", "start", "end", "stop", "special", "class", "image", "audio"),
    *("num", "max", "min", "per", "use", "first", "last", "next", "new", "decoder", "prompt", "padding", "blank"),
}
_NO_SECRETS = {"PWD", "OLDPWD"}


@cache
def is_secret(key: str) -> bool:
    """Tell whether a key or a variable is called like something secret: `db_password`, `apiToken`, `API_KEY`.

    `num_tokens`, `tokenizer`, `pad_token`, `monkey`, `sort_key` and `password_file` are not.
    """
    words = [word.lower() for word in _WORDS.findall(key)]
    if not words or key in _NO_SECRETS:
        return False
    last, before = words[-1], words[-2] if len(words) > 1 else ""
    if _ENDS.search(last):
        return True
    if last in ("key", "keys"):
        return before in _KINDS_OF_KEY
    return last == "token" and before not in _TOKENS_OF_TEXT
