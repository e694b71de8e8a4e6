"""The provenance of a training run: code, packages, machine and command, which are the same for a whole sweep.

The driver captures it once, without torch; what only a rank knows (threads, device, flags, data) is in its trace.
Records of others are read as data: nothing in them is run, imported or applied here.
"""

import base64
import hashlib
import json
import os
import platform
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from itertools import takewhile
from pathlib import Path
from typing import Any

from sweeps.core import paths
from sweeps.core.git import GitError, git
from sweeps.core.urls import hide_password
from sweeps.search.space.typed_secrets import hide_typed

__all__ = [
    "KINDS",
    "Provenance",
    "artifact_name",
    "capture",
    "computes",
    "differences",
    "imported_sources",
    "local_packages",
]

_MAX_DIFF = 5_000_000  # bytes
_MAX_FILE, _MAX_FILES, _MAX_TOTAL = 1_000_000, 500, 5_000_000
KINDS = (".py", ".yaml", ".yml")
"""of files that are recorded where no commit holds them"""
_VARIABLES = ("PYTHONHASHSEED", "LD_PRELOAD", "ATEN_CPU_CAPABILITY", "CUBLAS_WORKSPACE_CONFIG", "NVIDIA_TF32_OVERRIDE")
_PREFIXES = (
    *("OMP_", "MKL_", "OPENBLAS_", "KMP_", "GOMP_", "NUMEXPR_", "ONEDNN_", "DNNL_"),
    *("CUDA_", "CUDNN_", "CUBLAS_", "NCCL_", "GLOO_", "TORCH_", "PYTORCH_"),
)
# As `git apply` reads it, whatever the user has set for his own eyes
_DIFF = (
    *("diff", "HEAD", "--binary", "--no-color", "--no-ext-diff", "--no-textconv", "--no-relative", "--unified=3"),
    *("--src-prefix=a/", "--dst-prefix=b/", "--submodule=short"),
)
_NO_MATTER = ("_NUM_THREADS",)  # ranks are given as many as their slot has, which their trace tells
_NETS = "lightning_modules/"
_COMPUTING = ("torch", "numpy", "pytorch-lightning", "lightning", "torchmetrics", "python", "scipy", "scikit-learn")
_COMPUTING_PREFIXES = ("torch", "nvidia-", "triton", "mkl", "intel-")
_CUT = "..."  # in place of files that were not looked at
_NO_WORD = {"cut": "git could not tell"}
_PACKAGES = "site-packages"
_SECRET_FILES = ("secret", "credential", "password")
Hide = Callable[[str], str]
_SECRET = ("KEY", "TOKEN", "SECRET", "PASS", "CREDENTIAL", "AUTH")


@dataclass(frozen=True, slots=True)
class Provenance:
    """What was captured, as plain data that JSON can hold."""

    content: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """A hash by which runs name it: the same for the same content."""
        return hashlib.sha256(self.text().encode()).hexdigest()[:16]

    def text(self) -> str:
        """Return it as JSON."""
        return json.dumps(self.content, indent=1, sort_keys=True) + "\n"

    def write(self, folder: Path) -> Path:
        """Write it into a folder and return the file; a folder can hold several."""
        path = folder / artifact_name(self.digest)
        if not path.is_file():
            paths.write_text(path, self.text())
        return path


def artifact_name(digest: str) -> str:
    """Return the name of the file with this provenance."""
    return f"provenance-{digest}.json"


def capture(
    command: Sequence[str],
    config_dir: Path | None = None,
    *,
    folder: Path | None = None,
    store_dir: Path | None = None,
    hide: Callable[[str], str] = hide_password,
) -> Provenance:
    """Look at the code, the packages and the machine; takes some tens of milliseconds.

    Args:
        command: What was typed; what is secret in it is hidden.
        config_dir: The folder of the user's own options and modules.
        folder: The working folder.
        store_dir: The store, whose files are nobody's code, unless one of the other folders is in it.
        hide: Hides what is secret in a text.
    """
    folder = (folder or Path.cwd()).resolve()
    config_dir = config_dir.resolve() if config_dir else None
    repository = _repository(folder, hide)
    store = (folder / store_dir).resolve() if store_dir else None
    if store and any(place.is_relative_to(store) for place in (folder, config_dir) if place):
        store = None
    return Provenance(
        {
            "command": [hide_typed(word) for word in command],
            "code": {
                **repository,
                **({"config_dir": os.path.relpath(config_dir, folder)} if config_dir else {}),
                "files": _files(folder, config_dir, store, repository["commit"] is not None, hide),
                "lightsweep": _own_code(),
            },
            "packages": _packages(),
            "local_packages": sorted(local_packages()),
            "machine": _machine(),
            "environment": _environment(os.environ),
        }
    )


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return what differs between two captures in words: by `code`, `packages`, `hardware` and `environment`.

    The likeliest to change a training run come first. What only one of them has is not a difference.
    """
    code_then, code_now = _mapping(then.get("code")), _mapping(now.get("code"))
    code: list[str] = []
    if code_then.get("commit") and code_now.get("commit") and code_then["commit"] != code_now["commit"]:
        code.append(f"commit {str(code_then['commit'])[:12]} (now {str(code_now['commit'])[:12]})")
    diffs = code_then.get("diff_sha256"), code_now.get("diff_sha256")
    if all(diffs) and diffs[0] != diffs[1]:
        code.append("the uncommitted changes")
    files_then, files_now = _mapping(code_then.get("files")), _mapping(code_now.get("files"))
    are_all = _CUT not in {*files_then, *files_now} and bool(code_then.get("commit")) == bool(code_now.get("commit"))
    for name in sorted({*files_then, *files_now} if are_all else files_then.keys() & files_now.keys()):
        old, new = _mapping(files_then.get(name)).get("sha256"), _mapping(files_now.get(name)).get("sha256")
        if old != new:
            code.append(f"{name} {'is new' if old is None else 'is gone' if new is None else 'has changed'}")
    code += _own_changes(*(_mapping(_mapping(of.get("lightsweep")).get("files")) for of in (code_then, code_now)))
    machine = ("cpu", "architecture", "gpus", "gpu_driver")
    return {
        "code": code,
        "packages": sorted(
            [
                *_changes(_some(then.get("machine"), ("python",)), _some(now.get("machine"), ("python",))),
                *_changes(_mapping(then.get("packages")), _mapping(now.get("packages"))),
            ],
            key=lambda word: not computes(word),
        ),
        "hardware": _changes(_some(then.get("machine"), machine), _some(now.get("machine"), machine)),
        "environment": _changes(
            {**_mattering(then.get("environment")), **_some(then.get("machine"), ("os",))},
            {**_mattering(now.get("environment")), **_some(now.get("machine"), ("os",))},
        ),
    }


def computes(package: str) -> bool:
    """Tell whether a package, or a word that begins with its name, takes part in the arithmetic of a training."""
    name = package.partition(" ")[0]
    return name in _COMPUTING or name.startswith(_COMPUTING_PREFIXES)


def _own_changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Name the files of Lightsweep that differ, nets and data first."""
    if not then or not now:
        return []
    changed = [name for name in {*then, *now} if then.get(name) != now.get(name)]
    return [f"{name} has changed" for name in sorted(changed, key=lambda name: (not name.startswith(_NETS), name))]


def _changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    names = sorted({*then, *now}) if then and now else []
    return [
        f"{name} {_word(then.get(name))} (now {_word(now.get(name))})"
        for name in names
        if then.get(name) != now.get(name)
    ]


def _mattering(variables: Any) -> dict[str, Any]:
    return {name: value for name, value in _mapping(variables).items() if not name.endswith(_NO_MATTER)}


def _word(value: Any) -> str:
    if value is None or value == []:
        return "none"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _some(of: Any, names: Iterable[str]) -> dict[str, Any]:
    return {name: _mapping(of)[name] for name in names if name in _mapping(of)}


# --- code ----------------------------------------------------------------------------------------------


def _repository(folder: Path, hide: Hide) -> dict[str, Any]:
    """Return the commit of the repository that a folder is in, and what was not committed, as a patch."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return {"commit": None}
    root = os.fsdecode(_git(folder, "rev-parse", "--show-toplevel") or b"").removesuffix("\n")
    diff = _git(folder, *_DIFF)
    return {
        "commit": commit.decode().strip(),
        "root": root,
        "folder": os.path.relpath(folder, root) if root else ".",
        "diff_sha256": None if diff is None else hashlib.sha256(diff).hexdigest(),
        "diff": _NO_WORD if diff is None else _content(diff, _MAX_DIFF, hide),
    }


def _files(folder: Path, config_dir: Path | None, store: Path | None, is_in_git: bool, hide: Hide) -> dict[str, Any]:
    """Return the files that no commit may hold: Python and YAML of the config folder, untracked Python below the other.

    YAML elsewhere is not composed, and may be anything.
    """
    found: list[Path] = []
    if config_dir is not None:
        own = _listed(config_dir, KINDS, "--cached", "--others")
        found += sorted(own or _walked(config_dir, store))  # git may ignore all of it
    untracked = _listed(folder, (".py",), "--others")
    found += untracked or []
    if store is not None:
        found = [path for path in found if not path.is_relative_to(store)]
    files: dict[str, Any] = {_CUT: _NO_WORD} if is_in_git and untracked is None else {}
    total = 0
    for path in dict.fromkeys(found):
        if len(files) >= _MAX_FILES:
            files[_CUT] = {"cut": f"{len(set(found)) - _MAX_FILES} more files"}
            break
        try:
            raw = path.read_bytes()
        except OSError:
            continue
        is_secret = any(word.lower() in path.stem.lower() for word in _SECRET_FILES)
        total += 0 if is_secret else len(raw)
        name = os.path.relpath(path, folder)
        files[name] = {
            "sha256": hashlib.sha256(raw).hexdigest(),
            **({"cut": "its name says that it is secret"} if is_secret else _content(raw, _left(total), hide)),
        }
    return files


def _listed(folder: Path, kinds: Iterable[str], *which: str) -> list[Path] | None:
    """Return the files below a folder that git lists and does not ignore; None if it cannot tell."""
    listed = _git(folder, "ls-files", *which, "--exclude-standard", "-z", "--", *(f"*{kind}" for kind in kinds))
    if listed is None:
        return None
    names = (os.fsdecode(name) for name in listed.split(b"\0") if name)
    return [folder / name for name in names if _PACKAGES not in name.split("/")]


def _walked(top: Path, store: Path | None) -> Iterator[Path]:
    """Yield the Python and YAML below a folder, but what is in environments, caches and the store."""
    for place, folders, names in os.walk(top):
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and name not in (_PACKAGES, "__pycache__") and Path(place, name) != store
        ]
        yield from (Path(place, name) for name in names if name.endswith(KINDS))


def _left(total: int) -> int:
    return _MAX_FILE if total <= _MAX_TOTAL else 0


def _content(raw: bytes, limit: int, hide: Hide) -> dict[str, str]:
    """Return bytes as text, or as base64 where they are none; what is too long is left out, and says so."""
    if len(raw) > limit:
        return {"cut": f"{len(raw)} bytes are too many to keep"}
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(raw).decode()}
    hidden = hide(text)
    return {"text": hidden} if hidden == text else {"text": hidden, "hidden": "passwords"}


def _own_code() -> dict[str, Any]:
    """Return a hash of each of Lightsweep's own files: its version does not tell of changes in a checkout."""
    root = paths.code_dir()
    files = {
        str(path.relative_to(top.parent)): hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        for top in (root / "sweeps", root / "lightning_modules", paths.conf_dir())
        for path in sorted(top.rglob("*"))
        if path.suffix in KINDS
    }
    return {"version": _version("lightsweep"), "files": files}


def _git(folder: Path, *arguments: str) -> bytes | None:
    try:
        return git("--no-optional-locks", *arguments, folder=folder)
    except GitError:
        return None


# --- packages and machine ------------------------------------------------------------------------------


def _packages() -> dict[str, str]:
    """Return the versions of all installed distributions; from the names of their folders, which is quick."""
    found: dict[str, str] = {}
    for distribution in metadata.distributions():
        folder = getattr(distribution, "_path", None)
        name, _, version = (folder.name if folder is not None else "").removesuffix(".dist-info").partition("-")
        if not version or not str(folder).endswith(".dist-info"):
            name, version = distribution.metadata["Name"] or "", distribution.version
        if name:
            found.setdefault(name.replace("_", "-").lower(), version)  # the first one is the one that is imported
    return dict(sorted(found.items()))


def local_packages() -> dict[str, dict[str, Any]]:
    """Return what was installed from a folder, a file or a repository, so that no index need have it: its origin."""
    found: dict[str, dict[str, Any]] = {}
    for distribution in metadata.distributions():
        folder = getattr(distribution, "_path", None)
        if not isinstance(folder, Path) or not (folder / "direct_url.json").is_file():
            continue
        name = folder.name.partition("-")[0].replace("_", "-").lower()
        try:
            origin = json.loads((folder / "direct_url.json").read_bytes())
        except (OSError, ValueError):
            origin = {}
        found.setdefault(name, origin if isinstance(origin, dict) else {})
    return found


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _machine() -> dict[str, Any]:
    models = {line.partition(":")[2].strip() for line in _read("/proc/cpuinfo") if line.startswith("model name")}
    gpus = [
        line.partition(":")[2].strip()
        for file in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
        for line in _read(str(file))
        if line.startswith("Model")
    ]
    driver = next((line for line in _read("/proc/driver/nvidia/version") if line.startswith("NVRM")), "")
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "os": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "cpu": ", ".join(sorted(models)) or platform.processor(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)),
        "gpus": gpus,
        "gpu_driver": " ".join(driver.partition(":")[2].split()),
    }


def _read(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that can change the bits of a result; nothing that may be a secret."""
    return {
        name: hide_password(value)
        for name, value in sorted(variables.items())
        if (name in _VARIABLES or name.startswith(_PREFIXES)) and not any(word in name for word in _SECRET)
    }


_SEEN: dict[str, str] = {}  # ranks are forked from a process that looked when it had just imported
_LOOKED: dict[
    tuple[str, ...], tuple[str, dict[str, str]]
] = {}  # by the roots: the last module that was there, and what
_FOREIGN = ("/site-packages/", "/dist-packages/")


def imported_sources(roots: Iterable[str]) -> dict[str, str]:
    """Return the hash of each imported Python file below one of `roots`, by its path relative to that.

    Installed packages are not looked at; they have versions. Nor are modules that were looked at before, since to touch
    thousands of them costs a rank, which shares them with others until then, tens of milliseconds.
    """
    roots = tuple(roots)
    last, known = _LOOKED.get(roots, ("", {}))
    new = list(takewhile(lambda item: item[0] != last, reversed(sys.modules.items())))
    found = {**known, **_sources([module for _, module in new], roots)}
    _LOOKED[roots] = (new[0][0] if new else last, found)
    return dict(sorted(found.items()))


def _sources(modules: Iterable[object], roots: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    folders = [f"{path}/" for root in roots for path in dict.fromkeys((Path(root), Path(root).resolve()))]
    library = f"{sysconfig.get_path('stdlib')}/"
    for module in modules:
        file = getattr(module, "__file__", None)
        if not isinstance(file, str) or not file.endswith(".py"):
            continue
        if _FOREIGN[0] in file or _FOREIGN[1] in file or file.startswith(library):
            continue
        folder = next((folder for folder in folders if file.startswith(folder)), None)
        if folder is None:
            continue
        if file not in _SEEN:
            try:
                _SEEN[file] = hashlib.sha256(Path(file).read_bytes()).hexdigest()
            except OSError:
                continue
        found[file.removeprefix(folder)] = _SEEN[file]
    return found
