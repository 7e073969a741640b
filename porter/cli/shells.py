"""Shells in which TAB completes: what each has to be told, where it looks for that, and what it is answered.

A shell calls porter with `_PORTER_COMPLETE`, its own name, and `_PORTER_LINE`, what stands before the cursor.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import typer

from porter.cli.typed_line import Line, Offer, offers, read_line

# The first line says how bash is to take the others; zsh and fish tell a directory by its `/`. What follows a
# redirection is the shell's own. Bash before 4 has no compopt, and quotes nothing then.
_BASH = """\
_porter_completion() {
    local line kind=
    COMPREPLY=()
    while IFS= read -r line; do
        if [[ -z $kind ]]; then kind=$line; else COMPREPLY+=("$line"); fi
    done < <(_PORTER_COMPLETE=bash _PORTER_LINE="${COMP_LINE:0:COMP_POINT}" \\
             _PORTER_BREAKS="$COMP_WORDBREAKS" "$1" 2>/dev/null)
    case $kind in
        paths) compopt -o filenames +o default 2>/dev/null ;;
        words) compopt +o default 2>/dev/null ;;
    esac
}
complete -o default -F _porter_completion porter weight-porter
"""

_ZSH = """\
#compdef porter weight-porter
_porter() {
    local line value
    local -a words_ shown folders homes
    for line in "${(@f)$(_PORTER_COMPLETE=zsh \\
            _PORTER_LINE="${(j: :)words[1,CURRENT-1]} $QIPREFIX$PREFIX" ${~words[1]} 2>/dev/null)}"; do
        value="${line%%$'\\t'*}"
        case $value in
            '') ;;
            '~'*) homes+=("~${(q)value#\\~}") ;;
            */) folders+=("$value") ;;
            *) words_+=("$value"); shown+=("${line/$'\\t'/  -- }") ;;
        esac
    done
    (( $#homes )) && compadd -Q -S '' -- "${homes[@]}"
    (( $#folders )) && compadd -S '' -- "${folders[@]}"
    (( $#words_ )) && compadd -l -d shown -- "${words_[@]}"
    (( $#homes + $#folders + $#words_ ))
}
if [[ $funcstack[1] == _porter ]]; then
    _porter "$@"
else
    compdef _porter porter weight-porter
fi
"""

_FISH = """\
function __porter_complete
    set -l command (commandline -opc)[1]
    set -lx _PORTER_COMPLETE fish
    set -lx _PORTER_LINE (commandline -cp | string collect)
    $command 2>/dev/null
end
complete -c porter -f -a '(__porter_complete)'
complete -c weight-porter -f -a '(__porter_complete)'
"""


@dataclass(frozen=True)
class Shell:
    """A shell: what it is told, the file it is told in, and what in its own settings reads that file."""

    script: str
    file: Callable[[], Path]
    answer: Callable[[Line, Sequence[Offer]], list[str]]
    settings: str | None = None
    reading: str = ""


def _data() -> Path:
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share")


def _config() -> Path:
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")


def _for_bash(line: Line, found: Sequence[Offer]) -> list[str]:
    # Bash breaks words at `=` and `:`, and puts what is offered in the place of the last piece.
    texts = [offer.text[line.kept :] for offer in found]
    if any("/" in text for text in texts):
        # It quotes paths, and sets the `/` after a directory, itself.
        return ["paths", *(text.rstrip("/") or text for text in texts)]
    return ["paths" if any(" " in text for text in texts) else "words", *texts]


def _described(line: Line, found: Sequence[Offer]) -> list[str]:
    return [offer.text + (f"\t{' '.join(offer.help.split())}" if offer.help else "") for offer in found]


SHELLS = {
    "bash": Shell(
        _BASH,
        lambda: _data() / "bash-completion/completions/porter",
        _for_bash,
        ".bashrc",
        "source '{file}'",
    ),
    "zsh": Shell(
        _ZSH,
        lambda: Path.home() / ".zfunc/_porter",
        _described,
        ".zshrc",
        "fpath+=('{folder}'); autoload -Uz compinit; compinit",
    ),
    "fish": Shell(_FISH, lambda: _config() / "fish/completions/porter.fish", _described),
}


def answer(name: str, app: typer.Typer) -> None:
    """Print what could stand at the cursor, a line each."""
    line = read_line(os.environ.get("_PORTER_LINE", ""), os.environ.get("_PORTER_BREAKS", ""))
    shell = SHELLS.get(name)
    if shell is None or _redirected(line):
        return
    found = offers(typer.main.get_command(app), line)
    sys.stdout.write("".join(f"{text}\n" for text in shell.answer(line, found)))


def install(name: str) -> list[Path]:
    """Write what the shell has to be told where it looks for it. Returns the files that were changed."""
    shell = SHELLS[name]
    file = shell.file()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(shell.script, encoding="utf-8")
    changed = [file]
    if shell.settings is not None:
        settings = Path.home() / shell.settings
        text = settings.read_text(encoding="utf-8", errors="surrogateescape") if settings.exists() else ""
        reading = shell.reading.format(file=file, folder=file.parent)
        if reading not in text.splitlines():
            before = "" if not text or text.endswith("\n") else "\n"
            with settings.open("a", encoding="utf-8") as end:
                end.write(f"{before}{reading}\n")
            changed.append(settings)
    return changed


def _redirected(line: Line) -> bool:
    return bool(line.words) and line.words[-1].lstrip("012&") in (">", ">>", "<")
