"""The request of a command on a recorded run: the run, its store, and the user's allowed modules."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from sweeps.config.composer import Composer
from sweeps.config.quoting import quote
from sweeps.core.urls import default_uri, store_options

__all__ = ["RunRequest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What commands that build a recorded run again are told.

    Attributes:
        run: The run, as typed.
        uri: The store's address, as typed; None for the database in `store_dir`.
        store_dir: The store.
        config_dir: The user's own modules; never taken from the record.
        allowed_modules: Likewise what a `_target_` may name.
        overrides: What follows `--`.
    """

    run: str
    uri: str | None = None
    store_dir: Path
    config_dir: Path | None = None
    allowed_modules: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()

    @property
    def store_uri(self) -> str:
        """The store's address."""
        return default_uri(self.store_dir) if self.uri is None else self.uri

    @property
    def overridden(self) -> list[str]:
        """The keys that the overrides give."""
        return [override.partition("=")[0] for override in self.overrides]

    def options(self) -> str:
        """Return the options by which another command finds the same store and modules; without a password."""
        mine = "" if self.config_dir is None else f" --config-dir {shlex.quote(str(self.config_dir))}"
        allowed = "".join(f" --allow {shlex.quote(module)}" for module in self.allowed_modules)
        return f"{mine}{allowed}{store_options(self.store_dir, self.uri)}"

    def composer(self, *overrides: str) -> Composer:
        """Compose what is of this machine: where the store and its data are, and what may be built."""
        own = [f"store_dir={quote(str(self.store_dir))}"]
        if self.uri is not None:
            own.append(f"tracking.uri={quote(self.uri)}")
        if self.allowed_modules:
            own.append(f"allowed_modules={quote(list(self.allowed_modules))}")
        return Composer("train", [*own, *overrides], self.config_dir)
