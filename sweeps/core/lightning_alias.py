"""Make both names of Lightning one: `lightning.pytorch` is `pytorch_lightning`, `lightning.fabric` `lightning_fabric`.

Both packages have the same content, but each defines its own classes: a module of one is not a LightningModule of the
other. Once the finder is installed, code that imports either name gets the same modules and classes. Nothing of
Lightning is imported before that code asks for it. `lightning.app` and `lightning.data` are not aliases.
"""

import importlib
import re
import sys
from contextlib import suppress
from importlib import metadata
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["install", "install_in_workers", "real_name"]

_PACKAGE = "lightning"
_REAL = {"lightning.pytorch": "pytorch_lightning", "lightning.fabric": "lightning_fabric"}
_TOP = {
    "Callback": "pytorch_lightning",
    "Fabric": "lightning_fabric",
    "LightningDataModule": "pytorch_lightning",
    "LightningModule": "pytorch_lightning",
    "Trainer": "pytorch_lightning",
    "__version__": "pytorch_lightning",
    "seed_everything": "pytorch_lightning",
}
"""what `lightning` itself has, and where it is from"""

_VERSION_FILES = ("version.info", "__version__.py", "__about__.py", "__init__.py")
_VERSION = re.compile(r"""(?:^|__version__\s*=\s*["'])(\d+\.\d[\w.+-]*)""", re.MULTILINE)


def install() -> None:
    """Put the finder before all others, once a process."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def install_in_workers() -> None:
    """Let the processes that this one starts by spawn or a fork server, such as a loader's workers, have it as well.

    Before they unpickle what they are given, they run the main module of this process, as which it names this one.
    """
    sys.modules["__main__"].__spec__ = ModuleSpec("sweeps.core.lightning_alias", None)


def real_name(name: str) -> str:
    """Return the name by which Lightning is installed of a dotted name: `lightning.pytorch.X`, `lightning.Callback`."""
    for alias, real in _REAL.items():
        if name == alias or name.startswith(f"{alias}."):
            return real + name.removeprefix(alias)
    package, _, rest = name.partition(".")
    return f"{_TOP[rest]}.{rest}" if package == _PACKAGE and rest in _TOP else name


class _Finder(MetaPathFinder):
    def find_spec(self, fullname: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Find `lightning` and what is below its two parts; nothing else."""
        if fullname == _PACKAGE:
            installed = PathFinder.find_spec(_PACKAGE)
            if installed is not None and installed.origin and not installed.submodule_search_locations:
                return None  # lightning.py is a file of the user's own
            spec = ModuleSpec(_PACKAGE, _TopLoader(), is_package=True)
            if installed is not None and installed.origin:  # lightning.app and lightning.data are found there
                spec.submodule_search_locations = list(installed.submodule_search_locations or ())
            return spec
        real = real_name(fullname)
        return None if real == fullname else ModuleSpec(fullname, _AliasLoader(real))


class _TopLoader(Loader):
    def exec_module(self, module: ModuleType) -> None:
        """Let the package have its names, each of which is imported when it is asked for."""

        def get(name: str) -> Any:
            if name in ("pytorch", "fabric"):
                return importlib.import_module(f"{_PACKAGE}.{name}")
            if name not in _TOP:
                raise AttributeError(f"module {_PACKAGE!r} has no attribute {name!r}")
            return getattr(importlib.import_module(_TOP[name]), name)

        names = sorted(_TOP)
        vars(module).update(__getattr__=get, __dir__=lambda: [*names, "fabric", "pytorch"], __all__=names)
        _tell_version(list(module.__path__))


class _AliasLoader(Loader):
    def __init__(self, real: str) -> None:
        self._real = real

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the module itself."""
        try:
            module = importlib.import_module(self._real)
        except ModuleNotFoundError as error:
            if error.name != self._real:
                raise
            raise ModuleNotFoundError(f"No module named {spec.name!r}", name=spec.name) from error
        self._own = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Give the module back its spec, in whose place importlib has put the alias's."""
        module.__spec__ = self._own


def _tell_version(folders: list[str]) -> None:
    """Say in the log which Lightning is used, if the user's `lightning` is of another version."""
    installed = next(filter(None, map(_version_in, folders)), "")
    if not installed:
        return
    with suppress(metadata.PackageNotFoundError):
        used = metadata.version("pytorch-lightning")
        if used != installed:
            print(
                f"lightning {installed} is installed, but pytorch-lightning {used} is used: `import lightning` is "
                "an alias of it here. To use another version, install that version of pytorch-lightning.",
                file=sys.stderr,
            )


def _version_in(folder: str) -> str:
    """Return the version of an installed `lightning`, which is not imported; empty if it does not say."""
    for name in _VERSION_FILES:
        with suppress(OSError, UnicodeDecodeError):
            found = _VERSION.search((Path(folder) / name).read_text())
            if found is not None:
                return found[1]
    return ""


if __name__ == "__mp_main__":  # in a process that multiprocessing has started, see `install_in_workers`
    importlib.import_module("sweeps.core.lightning_alias").install()
