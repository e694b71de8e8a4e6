"""Set up Hydra for the folders of a command line: its search path, its resolvers, and its `compose`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from sweeps.config import schema
from sweeps.config.parts import PARTS
from sweeps.config.quoting import quote
from sweeps.core import paths
from sweeps.core.errors import ConfigError

__all__ = ["group_options", "hydra_compose", "initialize"]

_NOTHING = object()


def hydra_compose(primary: str, overrides: Sequence[str], config_dir: Path | None) -> DictConfig:
    """Compose a command line; what Hydra and OmegaConf refuse, they refuse in their own words."""
    from hydra import compose

    with initialize(_home(primary, config_dir)):
        typed = [*_search_path(primary, config_dir), *map(_without_null, overrides)]
        return compose(primary, typed, return_hydra_config=True)


def _without_null(override: str) -> str:
    """Say `~system` for `system=null`, which Hydra does not know of a group."""
    name, _, value = override.partition("=")
    return f"~{name}" if name in (*PARTS, "data") and value == "null" else override


def initialize(home: Path | None = None) -> Any:
    """Set Hydra up over the shipped configuration, or another folder, as a context manager."""
    from hydra import initialize_config_dir

    schema.register()
    if not OmegaConf.has_resolver("mode"):
        OmegaConf.register_new_resolver("mode", _mode)
        OmegaConf.register_new_resolver("first", _first)
    context = initialize_config_dir(str(home or paths.conf_dir()), job_name="lightsweep", version_base="1.3")
    OmegaConf.register_new_resolver("hydra", _of_hydra, replace=True)  # Hydra's own gives null for what is not there
    return context


def _of_hydra(name: str) -> Any:
    """Return what Hydra says of the configuration that is resolved, see `Composer`."""
    from hydra.core.hydra_config import HydraConfig

    node: Any = HydraConfig.get() if HydraConfig.initialized() else OmegaConf.create()
    found = OmegaConf.select(node, name, default=_NOTHING)
    if found is _NOTHING:
        raise ConfigError(
            f"${{hydra:{name}}} has no value here. What there is: hydra:runtime.choices.GROUP, hydra:job.name, "
            "hydra:runtime.cwd and other keys of Hydra's that need no job of Hydra's."
        )
    return found


def _mode(direction: str) -> str:
    """Say Optuna's `maximize` in Lightning's words."""
    modes = {"maximize": "max", "minimize": "min"}
    if direction not in modes:
        raise ConfigError(
            f"study.direction (for `train`: objective.direction) must be 'maximize' or 'minimize', but got "
            f"{direction!r}."
        )
    return modes[direction]


def _first(values: Any) -> Any:
    """Return the first of several, or the only one."""
    return values[0] if isinstance(values, Sequence) and not isinstance(values, str) and values else values


def _home(primary: str, config_dir: Path | None) -> Path:
    """Return the folder that holds the primary config: Hydra looks for it in one place only."""
    is_own = config_dir is not None and (config_dir / f"{primary}.yaml").is_file()
    is_shipped = (paths.conf_dir() / f"{primary}.yaml").is_file()
    return config_dir if config_dir is not None and is_own and not is_shipped else paths.conf_dir()


def _search_path(primary: str, config_dir: Path | None) -> list[str]:
    """Return the override that names the other folder of the two, if there is one."""
    if config_dir is None:
        return []
    other = config_dir if _home(primary, config_dir) == paths.conf_dir() else paths.conf_dir()
    return [f"hydra.searchpath={quote([f'file://{other}'])}"]


def group_options(group: str, config_dir: Path | None) -> list[str]:
    """List the options of a group, the user's own included."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.object_type import ObjectType

    with initialize():
        loader = GlobalHydra.instance().config_loader()
        options = loader.get_group_options(group, ObjectType.CONFIG, "train", _search_path("train", config_dir))
    return sorted(options)
