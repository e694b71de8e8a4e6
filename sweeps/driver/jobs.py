"""What ranks are started with: the one place that builds a `RankJob`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sweeps.config.composer import Composer, Config, fingerprint
from sweeps.core.messages import Place, RankJob
from sweeps.core.secrets import Hidden
from sweeps.launchers.slots import Slot

__all__ = ["JobBuilder", "python_path"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobBuilder:
    """Builds the jobs of one command: holds what all its ranks have in common.

    Attributes:
        python_path: Folders from which the user's modules are imported.
        allowed_modules: The modules that a `_target_` may name.
        hidden: Returns the secrets that a config hides; they go to the ranks alone.
        place: The rank's place in a group that torchrun or srun started; None if the launcher assigns places.
        environment: Variables of every rank, besides those of its slot.
    """

    python_path: tuple[str, ...] = ()
    allowed_modules: tuple[str, ...] = ()
    hidden: Callable[[Config], Hidden] = lambda config: ()
    place: Place | None = None
    environment: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, composer: Composer, **more: Any) -> "JobBuilder":
        """Build the jobs of a composed command line; `more` sets the other attributes."""
        return cls(
            **{
                "python_path": python_path(composer),
                "allowed_modules": composer.allowed_modules,
                "hidden": composer.hidden,
                **more,
            }
        )

    def job(
        self,
        kind: Literal["fit", "check", "measure", "compare", "inspect_data", "inspect"],
        folder: Path,
        slot: Slot,
        configs: Sequence[Config],
        **more: Any,
    ) -> RankJob:
        """Build the job of all ranks that run in a slot.

        Args:
            kind: What the ranks do, see `RankJob`.
            folder: The folder with the frozen config.
            slot: The lease.
            configs: The configs that the ranks read from `folder`.
            more: What only some kinds need, see `RankJob`.
        """
        hidden = {fingerprint(config): found for config in configs if (found := self.hidden(config))}
        return RankJob(
            kind=kind,
            folder=str(folder),
            place=self.place or Place(),
            python_path=self.python_path,
            allowed_modules=self.allowed_modules,
            threads=slot.threads,
            environment=(*self.environment, *slot.environment),
            hidden=hidden,
            **more,
        )


def python_path(composer: Composer) -> tuple[str, ...]:
    """Return the folders in which the user's modules are found: --config-dir and the working folder."""
    folders = [str(composer.config_dir)] if composer.config_dir else []
    return (*folders, str(Path.cwd()))
