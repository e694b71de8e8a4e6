"""Shell completion: the words of the command line, and the groups, options and keys of the configuration."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sweeps.cli.parser import choices_of, topics
from sweeps.config.study_file import recorded_studies
from sweeps.core import paths
from sweeps.core.errors import LightsweepError, StoreError

__all__ = ["complete", "script"]

_SCRIPTS = {
    "bash": """\
_lightsweep() {
    local line="${COMP_LINE:0:COMP_POINT}" word found cut="" breaks="${COMP_WORDBREAKS//[^=:@]/}"
    word="${line##*[[:space:]]}"
    # readline cuts words at =, : and @, and wants only what comes after
    [[ -n $breaks && $word == *[$breaks]* ]] && cut="${word%"${word##*[$breaks]}"}"
    cut="${cut#[\\'\\"]}"
    COMPREPLY=()
    while IFS= read -r found; do
        [ -n "$found" ] && COMPREPLY+=("${found#"$cut"}")
    done < <(lightsweep completion bash --line "$line" 2>/dev/null)
}
complete -o nospace -o default -F _lightsweep lightsweep
# To keep it: lightsweep completion bash >> ~/.bashrc""",
    "zsh": """\
_lightsweep() {
    local -a words_found
    words_found=("${(@f)$(lightsweep completion zsh --line "${LBUFFER}" 2>/dev/null)}")
    [ -n "${words_found[1]}" ] && compadd -Q -S '' -- $words_found || _files
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
compdef _lightsweep lightsweep
# To keep it: lightsweep completion zsh >> ~/.zshrc""",
    "fish": """\
complete -c lightsweep -a '(lightsweep completion fish --line (commandline -cp) 2>/dev/null)'
# To keep it: lightsweep completion fish > ~/.config/fish/completions/lightsweep.fish""",
}
_HARMLESS = re.compile(r"[\w@%+=:,./][\w@%+=:,./#\[\]-]* ?", re.ASCII)
_WORD = re.compile(r"""(?:[^\s'"\\]|\\.|'[^']*(?:'|$)|"[^"]*(?:"|$))+""")


def script(shell: str) -> str:
    """Return the script that a shell evaluates to complete `lightsweep`."""
    return _SCRIPTS[shell]


def complete(line: str, commands: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the words that may stand at the end of a half-typed command line.

    Args:
        line: What is typed up to the cursor, the program's name included.
        commands: The options of each command.
    """
    words = _WORD.findall(line)
    is_new = not words or not line.endswith(words[-1])
    before, word = (words, "") if is_new else (words[:-1], words[-1])
    before, word = [_unquoted(item) for item in before], _unquoted(word)
    if len(before) <= 1:
        return [f"{name} " for name in sorted(commands) if name.startswith(word)]
    command, typed = before[1], before[2:]
    if word.startswith("-"):
        return [f"{option} " for option in commands.get(command, ()) if option.startswith(word)]
    last = typed[-1] if typed else ""
    if last.startswith("-"):
        choices = choices_of(command, last)
        if choices is not None:  # without choices: a path, which the shell completes, or a number
            return _matching((f"{choice} " for choice in sorted(choices)), word)
    if command in ("train", "sweep", "check"):
        return _overrides("train" if command == "train" else "sweep", typed, word)
    if command in ("compare", "report", "resume", "ui"):
        return _matching((f"{name} " for name in _studies(_option(typed, "--store-dir") or "mlruns")), word)
    if command in ("show", "diff", "reproduce", "export", "promote"):
        return _runs(_option(typed, "--store-dir") or "mlruns", word)
    if command == "predict":
        return _models(typed, word)
    if command in ("enqueue", "stop"):
        return _steering(command, typed, word)
    if command == "help":
        return [] if typed else _matching((f"{topic} " for topic in sorted(topics())), word)
    if command == "completion":
        return _matching((f"{shell} " for shell in _SCRIPTS), word)
    return []


def _unquoted(word: str) -> str:
    return re.sub(r"""['"]|\\(?=.)""", "", word)


def _matching(found: Iterable[str], word: str) -> list[str]:
    """Return what begins with `word`, but nothing that a shell would run or that would be an option.

    Names in a store are others' to choose, and what is offered stands on the line unquoted: `$(...)` would be run.
    """
    return [entry for entry in found if entry.startswith(word) and _HARMLESS.fullmatch(entry)]


def _option(typed: Sequence[str], *names: str) -> str | None:
    for index, item in enumerate(typed):
        name, equals, value = item.partition("=")
        if name in names:
            return value if equals else next(iter(typed[index + 1 :]), None)
    return None


def _studies(store_dir: str) -> list[str]:
    """Name the studies of a store."""
    return sorted(recorded_studies(Path(store_dir)))


def _runs(store_dir: str, word: str) -> list[str]:
    """Offer the best of each study and its trials, and single runs; the numbers once their study is typed."""
    numbered = {name: paths.study_dir(Path(store_dir), name) for name in _studies(store_dir)}
    numbered["train"] = Path(store_dir) / "train"
    of, mark, _ = word.rpartition("#")
    if mark and of in numbered:
        numbers = sorted(int(folder.name) for folder in numbered[of].glob("*") if folder.name.isdecimal())
        return _matching((f"{of}#{number} " for number in numbers), word)
    best = [f"best:{name} " for name in numbered if name != "train"]
    return _matching([*best, *(f"{name}#" for name, folder in numbered.items() if folder.is_dir())], word)


def _models(typed: Sequence[str], word: str) -> list[str]:
    """Offer the registered models with their aliases; after one of them comes a file, which the shell completes."""
    from sweeps.core.urls import default_uri
    from sweeps.serving.names import registered_names

    store = Path(_option(typed, "--store-dir") or "mlruns")
    uri = _option(typed, "--uri") or default_uri(store)
    if uri.startswith("http"):
        return []
    try:
        names = registered_names(uri)
    except StoreError:
        return []
    if any(item in names for item in typed):
        return []
    return _matching((f"{name} " for name in names), word)


def _steering(command: str, typed: Sequence[str], word: str) -> list[str]:
    """Offer the studies, and after one of them, to `enqueue`, the keys that it searches."""
    records = recorded_studies(Path(_option(typed, "--store-dir") or "mlruns"))
    study = next((item for item in typed if item in records), None)
    if study is None:
        return _matching((f"{name} " for name in sorted(records)), word)
    if command == "stop":
        return []
    space = records[study].get("space")
    names = (re.split(r"[@\[]", str(name))[0].lstrip("+") for name in (space if isinstance(space, Mapping) else ()))
    return _matching((f"{key}=" for key in dict.fromkeys(names) if key != "forbid"), word)


# --- overrides -----------------------------------------------------------------------------------------


def _overrides(primary: str, typed: Sequence[str], word: str) -> list[str]:
    from sweeps.config.composer import Composer

    primary = _option(typed, "--config-name", "-cn") or primary
    folder = _option(typed, "--config-dir", "-cd")
    plain = [item for item in typed if "=" in item and not item.startswith("-")]
    composer = None
    for overrides in (plain, []):  # what is half typed or wrong need not compose
        try:
            composer = Composer(primary, _without_sweeps(overrides), Path(folder) if folder else None)
        except LightsweepError:
            continue
        break
    if composer is None:
        return []
    prefix = word[: len(word) - len(word.lstrip("+~"))]
    word = word.removeprefix(prefix)
    return [f"{prefix}{entry}" for entry in _matching(_candidates(composer, word), word)]


def _without_sweeps(overrides: Sequence[str]) -> list[str]:
    from sweeps.search.space.declare import split_overrides

    return split_overrides(overrides)[0]


def _candidates(composer: Any, word: str) -> list[str]:
    from omegaconf import OmegaConf

    key, equals, value = word.partition("=")
    if equals and composer.is_group(key):
        head, comma, last = value.rpartition(",")  # model=cnn,m<TAB>
        return [f"{key}={head}{comma}{option} " for option in composer.options(key) if option.startswith(last)]
    tree = OmegaConf.to_container(composer.tree)
    assert isinstance(tree, dict)
    tree.pop("hydra", None)
    if equals:
        return [entry for entry in _values(_at(tree, key.split(".")), key) if entry.startswith(word)]
    *parents, last = key.split(".")
    node = _at(tree, parents)
    if not isinstance(node, Mapping):
        return []
    found = []
    for name, child in node.items():
        dotted = ".".join([*parents, str(name)])
        if not str(name).startswith(last) or str(name).startswith("_"):
            continue
        if not parents and composer.is_group(dotted):
            found.append(f"{dotted}=")
        found.append(f"{dotted}." if isinstance(child, Mapping) and child else f"{dotted}=")
    if not parents:
        found += [f"{group}=" for group in _groups(composer) if group.startswith(last)]
    return sorted(set(found))


def _groups(composer: Any) -> list[str]:
    folders = [folder for folder in (paths.conf_dir(), composer.config_dir) if folder]
    return [entry.name for folder in folders for entry in folder.iterdir() if composer.is_group(entry.name)]


def _at(tree: Any, keys: Sequence[str]) -> Any:
    for key in keys:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree


def _values(value: Any, key: str) -> list[str]:
    """Offer the value that stands there now, to be edited."""
    if isinstance(value, bool):
        return [f"{key}=true ", f"{key}=false "]
    if value is None or isinstance(value, Mapping):
        return []
    text = str(value).replace(" ", "").replace("'", "")
    return [] if "${" in text else [f"{key}={text} "]
