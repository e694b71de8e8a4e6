"""Fetching one file from the first mirror that gives the right bytes."""

import hashlib
import os
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path

__all__ = ["DownloadError", "download"]

_CHUNK_BYTES = 1 << 20


class DownloadError(OSError):
    """No mirror gave the file; the message has one line a mirror."""


def download(mirrors: Sequence[str], target: Path, sha256: str, timeout_s: float) -> None:
    """Fetch the file called `target.name` from one of `mirrors` into `target`.

    It is written aside and takes its name only when its checksum is right.

    Args:
        mirrors: folders on the web, `http://...` or `https://...`, tried in order.
        target: where the file goes; its folder is made if it is missing.
        sha256: the checksum of the file, in hexadecimal.
        timeout_s: how long a mirror may stay silent.

    Raises:
        DownloadError: no mirror gave a file with this checksum.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f"{target.name}.{os.getpid()}.partial")
    failures = []
    for mirror in mirrors:
        url = f"{mirror.rstrip('/')}/{target.name}"
        try:
            found = _fetch(url, aside, timeout_s)
            if found == sha256:
                aside.replace(target)
                return
            failures.append(f"{url}: its SHA-256 must be {sha256}, but is {found}")
        except (OSError, HTTPException, ValueError) as exc:
            failures.append(f"{url}: {exc}")
        finally:
            aside.unlink(missing_ok=True)
    raise DownloadError("\n".join(failures) or f"there is no mirror to fetch {target.name} from")


def _fetch(url: str, target: Path, timeout_s: float) -> str:
    """Write what `url` holds into `target` and return its SHA-256."""
    if not url.startswith(("http://", "https://")):  # urllib would read local files too
        raise ValueError("a mirror must begin with http:// or https://")
    digest = hashlib.sha256()
    with urllib.request.urlopen(url, timeout=timeout_s) as response, target.open("wb") as file:
        while chunk := response.read(_CHUNK_BYTES):
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()
