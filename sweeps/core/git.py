"""Run git in a subprocess, with one time-out and one kind of error."""

import subprocess
from collections.abc import Mapping
from pathlib import Path

from sweeps.core.text import plain

__all__ = ["GitError", "git"]

_TIMEOUT_S = 20.0


class GitError(Exception):
    """Git cannot be started, refuses, or takes too long; the text says why, in one line."""


def git(
    *arguments: str,
    folder: Path | None = None,
    stdin: bytes = b"",
    environment: Mapping[str, str] | None = None,
    timeout_s: float | None = _TIMEOUT_S,
) -> bytes:
    """Run git and return what it prints.

    Args:
        arguments: The command, with its options.
        folder: Where it runs; None for the working folder.
        stdin: Its input.
        environment: Its variables; None for those of this process.
        timeout_s: How long it may take; None for as long as it needs.

    Raises:
        GitError: It does not end, or not with status 0.
    """
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=folder,
            input=stdin,
            capture_output=True,
            check=False,
            env=environment,
            timeout=timeout_s,
        )
    except OSError as error:
        raise GitError(f"git cannot be started: {error}") from error
    except subprocess.TimeoutExpired as error:
        raise GitError(f"git has not ended after {timeout_s:g} s") from error
    if done.returncode != 0:
        printed = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit status {done.returncode}"]
        raise GitError(plain(" ".join(printed)[:500]))
    return done.stdout
