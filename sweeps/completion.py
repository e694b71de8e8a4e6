"""Shell completion: the command's words, and Hydra's own completion for overrides."""

from pathlib import Path

from sweeps import paths
from sweeps.config import initialize
from sweeps.errors import LightsweepError

__all__ = ["complete", "script"]

_COMMANDS = ("compare", "completion", "resume", "sweep", "train", "ui")

_SCRIPTS = {
    "bash": """\
_lightsweep() {
    local line="${COMP_LINE:0:COMP_POINT}"
    COMPREPLY=()
    while IFS= read -r word; do
        [ -n "$word" ] && COMPREPLY+=("$word")
    done < <(lightsweep completion bash --line "$line" 2>/dev/null)
}
COMP_WORDBREAKS=${COMP_WORDBREAKS//=}
complete -o nospace -o default -F _lightsweep lightsweep
# To keep it: lightsweep completion bash >> ~/.bashrc""",
    "zsh": """\
_lightsweep() {
    local -a words_found
    words_found=("${(@f)$(lightsweep completion zsh --line "${LBUFFER}" 2>/dev/null)}")
    compadd -S '' -- $words_found
}
compdef _lightsweep lightsweep
# To keep it: lightsweep completion zsh >> ~/.zshrc""",
    "fish": """\
complete -c lightsweep -f -a '(lightsweep completion fish --line (commandline -cp) 2>/dev/null)'
# To keep it: lightsweep completion fish > ~/.config/fish/completions/lightsweep.fish""",
}


def script(shell: str) -> str:
    """Return the script that a shell evaluates to complete `lightsweep`."""
    return _SCRIPTS[shell]


def complete(line: str) -> list[str]:
    """Return the words that may stand at the end of a half-typed command line."""
    words = line.split()
    is_new = line.endswith(" ") or not line
    before, word = (words, "") if is_new else (words[:-1], words[-1])
    if len(before) <= 1:
        return [f"{name} " for name in _COMMANDS if name.startswith(word)]
    command, typed = before[1], before[2:]
    if command in ("train", "sweep"):
        return _overrides(command, typed, word)
    if command in ("compare", "resume"):
        return [f"{name} " for name in _studies() if name.startswith(word)]
    return []


def _overrides(primary: str, typed: list[str], word: str) -> list[str]:
    from hydra.core.global_hydra import GlobalHydra
    from hydra.plugins.completion_plugin import DefaultCompletionPlugin

    searching = [item for item in typed if not item.startswith("-")]
    try:
        with initialize():
            plugin = DefaultCompletionPlugin(GlobalHydra.instance().config_loader())
            # Hydra's own query; there is no public name for it
            found = plugin._query(config_name=primary, line=" ".join([*searching, word]))
    except (LightsweepError, ValueError):
        return []
    return [entry for entry in found if not entry.startswith("hydra")]


def _studies() -> list[str]:
    return sorted(path.parent.name for path in Path("mlruns").glob(f"*/{paths.STUDY}"))
