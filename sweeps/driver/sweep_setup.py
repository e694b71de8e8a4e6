"""Plan a sweep: compose its command line, build its space, reject what cannot work, and compose its trials."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps.config.composer import Composer, Config
from sweeps.config.quoting import verbatim
from sweeps.config.study_file import read_record
from sweeps.core import paths
from sweeps.core.errors import ConfigError, SpaceError, did_you_mean
from sweeps.core.seeds import derive_seed
from sweeps.core.urls import sqlite_url
from sweeps.driver.preflight import Corner
from sweeps.driver.session import CommandLine
from sweeps.driver.trials import NUM_PARAMS
from sweeps.search.objectives import parse_constraints, parse_objectives
from sweeps.search.replicates import replication
from sweeps.search.samplers import ENUMERATING, build_pruner, build_sampler
from sweeps.search.space.declare import key_of, parse_space, split_overrides
from sweeps.search.space.overrides import with_further
from sweeps.search.space.space import Space
from sweeps.search.terms import StudyTerms, require_judgeable

__all__ = [
    "SweepPlan",
    "build_space",
    "judged_metrics",
    "plan_sweep",
    "read_sweep",
    "recorded_command",
    "recorded_storage",
    "require_in_space",
    "require_logged",
    "require_sound",
    "storage_url",
]


@dataclass(slots=True, kw_only=True)
class SweepPlan:
    """A sweep as its command line describes it, checked as far as no process is needed.

    Attributes:
        config: The resolved base.
        terms: What trials are judged by, and how often each is trained.
    """

    composer: Composer
    config: Config
    space: Space
    terms: StudyTerms
    sampler: Any
    pruner: Any

    @property
    def prunes(self) -> bool:
        """Whether reports within a training can lead to pruning."""
        judges_no_epochs = ("optuna.pruners.NopPruner", "optuna.pruners.WilcoxonPruner")
        return self.config["pruner"]["_target_"] not in judges_no_epochs

    @property
    def judged(self) -> list[str]:
        """The metrics of the objectives and constraints."""
        return [*self.terms.metrics, *(constraint.metric for constraint in self.terms.constraints)]

    def trial(self, values: Mapping[str, Any], number: int = 0, replicate: int | None = 0) -> Config:
        """Compose the config of a trial, or of one of its replicates, with the seed that its number gives."""
        seed = derive_seed(self.config["seed"], number) & 0x7FFFFFFF
        if replicate is None:
            return self.composer.trial(values, seed)
        changes = self.terms.replication.changes(replicate, seed=self.config["seed"], trial_seed=seed)
        return self.composer.trial({**changes, **values}, seed)

    def corners(self) -> list[Corner]:
        """Compose the first value of each parameter, then each further choice and end, all else as little changed."""
        corners: list[Corner] = [(values, self.trial(values)) for values in self.space.corners()]
        _require_same_devices(self.config, [config for _, config in corners])
        return corners


def plan_sweep(command: CommandLine) -> SweepPlan:
    """Compose the command line of a sweep, build all that it names, and refuse what makes no sense.

    Raises:
        UsageError: The command line makes no sense.
    """
    composer, config, space = read_sweep(command)
    require_sound(config)
    require_in_space(config["study"]["enqueue"], space)
    study, objective = config["study"], config["objective"]
    terms = StudyTerms.of(
        study["metric"],
        study["direction"],
        reported=(objective["metric"], objective["direction"]),
        constraints=parse_constraints(study["constraints"]),
        replication=replication(config, space.keys),
    )
    sampler = build_sampler(config["sampler"], space, config["allowed_modules"], num_objectives=len(terms.objectives))
    pruner = build_pruner(config["pruner"], config["allowed_modules"])
    require_judgeable(pruner, terms)
    return SweepPlan(composer=composer, config=config, space=space, terms=terms, sampler=sampler, pruner=pruner)


def read_sweep(command: CommandLine) -> tuple[Composer, Config, Space]:
    """Compose the command line of a sweep, and build its space.

    Raises:
        UsageError: The command line makes no sense.
    """
    plain, sweeps = split_overrides(command.overrides)
    if sweeps and not any(override.startswith("search=") for override in plain):
        plain.append("search=none")  # who types what to search means just that
    composer = Composer(command.config_name, plain, command.config_dir)
    config = composer.base()
    if "study" not in config:
        raise ConfigError(
            f"--config-name={command.config_name} is not a sweep config: its defaults must include sweep_schema, "
            "search, sampler, pruner, study and launcher, as in conf/sweep.yaml."
        )
    return composer, config, build_space(composer, config, command.overrides)


def build_space(composer: Composer, config: Config, overrides: Sequence[str]) -> Space:
    """Build the space, and compose points that set every key so that a wrong key or type is refused at once."""
    space = parse_space(
        config["search"],
        overrides,
        composer.options,
        fixed=composer.value,
        option_ranges=composer.ranges,
        brings_options=config["sampler"]["_target_"] not in ENUMERATING,  # ranges are no grid
    )
    if not space:
        raise ConfigError(
            "The search space is empty. Add a sweep expression, such as "
            "'optimizer.lr=tag(log,interval(1e-4,1e-1))', or choose a space: search="
            f"{'|'.join(composer.options('search'))}."
        )
    composed: set[str] = set()
    for point in space.corners():
        settings = space.settings(point)
        if not settings <= composed:
            composer.check_values(space.overrides(point))
            composed |= settings
    return space


def recorded_command(name: str, store_dir: Path, further: Sequence[str] = ()) -> CommandLine:
    """Return the command line that started a study, with `further` overrides.

    Raises:
        StudyError: There is no such study in the store.
        StoreError: Its record cannot be read, or others can have written it.
    """
    stored = read_record(name, store_dir, is_run=True)
    config_dir = Path(stored["config_dir"]) if stored["config_dir"] else None
    fixed = {"study.name": name, "store_dir": str(store_dir)}
    overrides = [override for override in stored["overrides"] if key_of(override) not in fixed]
    return CommandLine(
        overrides=(
            *with_further(overrides, further, stored["config_name"], config_dir),
            *(f"{key}={verbatim(value)}" for key, value in fixed.items()),
        ),
        config_name=stored["config_name"],
        config_dir=config_dir,
    )


def storage_url(config: Config) -> str:
    """Return the URL of Optuna's tables."""
    url = config["study"]["storage"]
    return url or sqlite_url(Path(config["store_dir"]) / paths.OPTUNA_DB)


def recorded_storage(name: str, store_dir: Path) -> str:
    """Return the URL of Optuna's tables that a study is in, by the command line that started it.

    Raises:
        StudyError: There is no such study in the store.
        ConfigError: The command line composes no more.
    """
    command = recorded_command(name, store_dir)
    plain, _ = split_overrides(command.overrides)
    return storage_url(Composer(command.config_name, plain, command.config_dir).base())


def require_sound(config: Config) -> None:
    """Refuse numbers and words of `study` that mean nothing."""
    study = config["study"]
    parse_objectives(study["metric"], study["direction"])
    parse_constraints(study["constraints"])
    if study["num_trials"] < 1:
        raise ConfigError(f"study.num_trials must be at least 1, but got {study['num_trials']}.")
    for key in ("timeout_s", "device_hours", "trial_timeout_s"):
        if study[key] is not None and not study[key] > 0:
            raise ConfigError(f"study.{key} must be above 0, or null for no limit, but got {study[key]}.")


def require_in_space(enqueue: Sequence[Mapping[str, Any]], space: Space) -> None:
    """Refuse values of `study.enqueue` that are not in the space."""
    for index, values in enumerate(enqueue):
        try:
            space.encode(values)
        except SpaceError as error:
            raise SpaceError(f"study.enqueue[{index}]: {error}") from error


def judged_metrics(config: Config) -> dict[str, list[str]]:
    """Return the metrics that trials are judged by, by the key that names them."""
    return {
        "study.metric": list(parse_objectives(config["study"]["metric"], config["study"]["direction"])),
        "study.constraints": [constraint.metric for constraint in parse_constraints(config["study"]["constraints"])],
    }


def require_logged(config: Config, logged: Sequence[str], late: Sequence[str] = ()) -> None:
    """Refuse objectives and constraints that no trial can have: neither logged in the check, nor perhaps later."""
    known = {*logged, NUM_PARAMS}
    for key, metrics in judged_metrics(config).items():
        for metric in metrics:
            if metric not in known and metric not in late:
                raise ConfigError(
                    f"{key} names {metric!r}, which the model never logs. It logs {', '.join(sorted(known))}. "
                    f"{did_you_mean(metric, known)}"
                )


def _require_same_devices(config: Config, corners: Sequence[Config]) -> None:
    """Reject spaces that vary the devices per trial."""
    for key in ("accelerator", "devices", "num_nodes"):
        if any(corner["trainer"][key] != config["trainer"][key] for corner in corners):
            raise ConfigError(
                f"trainer.{key} cannot be searched, since the slots are cut to it: run one sweep for each value."
            )
