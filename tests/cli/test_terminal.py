"""Tables in a terminal of 80 and of 120 columns, and in a pipe."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import porter
from porter.containers.base import StoredTensor
from porter.dtypes import DTYPES
from porter.reporting.collapse import collapse, collapsed_name
from porter.reporting.fitting import fit, folded, shorten, stack, wrapped
from porter.reporting.verdicts import render as render_verdict

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
Shown = Callable[..., list[str]]


@pytest.fixture
def shown(tmp_path: Path) -> Shown:
    """The lines that a command writes to a terminal of so many columns, with what colours them."""

    def run(columns: int, *arguments: str | Path, code: int = 0) -> list[str]:
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        env = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "COLUMNS")}
        env |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf"), "TERM": "xterm-256color"}
        process = subprocess.Popen(
            [sys.executable, "-m", "porter", *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=slave,
            stderr=slave,
            env=env,
            close_fds=True,
        )
        os.close(slave)
        data = b""
        while True:
            try:
                piece = os.read(master, 65536)
            except OSError:  # Linux says so when the other end has gone.
                break
            if not piece:
                break
            data += piece
        os.close(master)
        assert process.wait(60) == code, data.decode()
        return data.decode().replace("\r\n", "\n").rstrip("\n").split("\n")

    return run


def plain(lines: list[str]) -> list[str]:
    return [_ANSI.sub("", line) for line in lines]


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize(
    "arguments",
    [
        ("inspect", "{gemma}"),
        ("inspect", "{gemma}", "--full"),
        ("inspect", "{gemma}", "--as", "keras"),
        ("convert", "{gemma}", "--to", "litgpt", "--dry-run", "--quiet"),
        ("mappings", "show", "gemma"),
        ("mappings", "ls"),
        ("models", "--quiet"),
    ],
)
def test_no_line_is_wider_than_the_terminal(shown, gemma, columns, arguments):
    lines = shown(columns, *(word.format(gemma=gemma) for word in arguments))
    assert max(map(len, plain(lines))) <= columns
    assert any(line.startswith("\x1b[1m") for line in lines), "headers are bold"


@pytest.fixture
def wrong(gemma: Path, tmp_path: Path) -> Path:
    """The model with most of its tensors changed, one of them by as little as a value, and one left out."""
    import torch
    from safetensors.torch import load_file, save_file

    out = Path(shutil.copytree(gemma, tmp_path / "wrong"))
    (file,) = out.glob("*.safetensors")
    weights = load_file(file)
    draw = torch.Generator().manual_seed(3)
    for at, (name, value) in enumerate(weights.items()):
        if "layers.1.mlp.up" in name:
            value[3, 2] += 1
        else:
            weights[name] = value + torch.randn(value.shape, generator=draw).to(value.dtype) * (at % 3)
    del weights["model.layers.0.post_attention_layernorm.weight"]
    save_file(weights, file, metadata={"format": "pt"})
    return out


@pytest.mark.parametrize("arguments", [("verify",), ("diff",), ("fingerprint", "--tensors")])
def test_and_none_that_says_what_differs(shown, gemma, wrong, arguments):
    alone = arguments[0] == "fingerprint"
    models = (gemma,) if alone else (gemma, wrong)
    body = shown(80, *arguments, "--quiet", *models, code=0 if alone else 3)
    # The fingerprint itself has 72 characters, and is never cut.
    assert max(len(line) for line in plain(body) if not line.startswith("porter1:")) <= 80
    assert any(line.startswith("\x1b[1m") for line in body), "headers are bold"


def test_layers_are_folded_where_the_same_differs(gemma, wrong):
    verdict = porter.verify(gemma, wrong)
    wide = render_verdict(verdict)
    assert max(map(len, wide)) > 120, "in a pipe"
    lines = render_verdict(verdict, width=80)
    (table,) = (at for at, line in enumerate(lines) if line.startswith("Tensor "))
    rows = [line for line in lines[table + 1 :] if not line.startswith(" ")]
    assert len(rows) == len({row.split()[0] for row in rows})
    below = lines[table + 1 :]
    (one,) = (at for at, line in enumerate(below) if line.startswith("model.layers.1.mlp.up_proj.weight"))
    assert "1 value is another" in below[one + 1]


def test_progress_is_one_line_that_fits(shown, gemma, tmp_path):
    text = "\n".join(shown(80, "convert", gemma, "--to", "litgpt", "-o", tmp_path / "o"))
    frames = [_ANSI.sub("", frame) for line in text.split("\n") for frame in line.split("\r")]
    bars = [frame for frame in frames if frame.startswith("convert ")]
    assert bars and "100%" in bars[-1]
    assert "56.8/56.8 kB" in bars[-1], "bytes"
    assert max(map(len, bars)) <= 80


def test_in_a_pipe_a_table_keeps_its_width(run, gemma):
    done = run("inspect", gemma, "--as", "litgpt", env={"COLUMNS": "80"})
    assert max(map(len, done.stdout.splitlines())) > 120
    assert "\x1b" not in done.stdout


def test_the_config_is_translated_before_your_eyes(call, gemma):
    lines = call("convert", gemma, "--to", "litgpt", "--dry-run").stdout.splitlines()
    rows = [line.split() for line in lines]
    assert ["hidden_size", "22", "→", "n_embd", "22"] in rows
    assert ["num_key_value_heads", "2", "→", "n_query_groups", "2"] in rows
    assert lines[-1] == "exact: every value is moved as it is"


@pytest.mark.parametrize(
    ("dtype", "words", "end"),
    [
        ("bfloat16", "29 rounded to bfloat16", "lossy: 29 tensors rounded to bfloat16"),
        ("float32", "every value moved as it is", "exact: every value is moved as it is"),
    ],
)
def test_exact_and_lossy_say_why(call, gemma, dtype, words, end):
    done = call("convert", gemma, "--to", "hf", "--dtype", dtype, "--dry-run")
    assert words in done.stdout
    assert done.stdout.splitlines()[-1] == end
    for never in ("extents", "0 dropped", "0 unmapped"):
        assert never not in done.stdout


# --- how tables are made to fit ----------------------------------------------------------------------

ROWS = [["Tensor", "Shape", "×"], ["a.long.name.of.a.tensor.weight", "[3, 4]", "12"], ["short", "[5]", "1"]]


def test_a_table_that_fits_is_left_alone():
    assert fit(ROWS, 45, right=(2,)) == fit(ROWS, None, right=(2,))
    assert fit(ROWS, None, right=(2,))[2].endswith("   1")


def test_columns_go_in_the_order_stated_and_then_names_shorten():
    assert fit(ROWS, 40, right=(2,), drop=(2,))[0].split() == ["Tensor", "Shape"]
    assert fit(ROWS, 40, right=(2,), drop=(1,))[0].split() == ["Tensor", "×"]
    lines = fit(ROWS, 30, right=(2,), drop=(2,))
    assert max(map(len, lines)) <= 30
    assert lines[1].startswith("a.lo") and "….a.tensor.weight" in lines[1]


@pytest.mark.parametrize("width", range(4, 40))
def test_a_shortened_name_has_the_width_asked_for(width):
    for name in ("model.layers.0.self_attn.q_proj.weight", "x" * 50, "層.重み.テンソル.とても.ながい.なまえ"):
        from porter.reporting.fitting import _columns

        assert _columns(shorten(name, width)) <= width
        assert shorten(name, 100) == name


def test_what_has_no_room_stands_below_its_row():
    rows = [["Target", "×", "From"], ["t", "3", "one.long.name + another.long.name"]]
    assert stack(rows, 30, right=(1,), under=(2,)) == [
        "Target  ×",
        "t       3",
        "  from  one.long.name",
        "        + another.long.name",
    ]
    assert stack(rows, 60, right=(1,), under=(2,)) == fit(rows, None, right=(1,))


def test_a_title_is_folded_between_its_parts():
    assert folded(["one", "two", "three"], 14) == ["one · two ·", "three"]
    assert folded(["one", "two"], None) == ["one · two"]


# --- numbered names ----------------------------------------------------------------------------------


def rows_of(*names: str) -> list[str]:
    tensors: list[Any] = [StoredTensor(name, DTYPES["F32"], (2, 3), "file", 0) for name in names]
    return [row.name for row in collapse(tensors)]


def test_the_numbered_folders_of_keras_and_flax_collapse():
    keras = [f"layers/block{f'_{n}' if n else ''}/dense/vars/0" for n in range(18)]
    assert rows_of(*keras) == ["layers/block{,_1.._17}/dense/vars/0"]
    flax = [f"transformer/layer_{n}/mlp/linear/w" for n in range(18)]
    assert rows_of(*flax) == ["transformer/layer_{0..17}/mlp/linear/w"]
    assert collapsed_name(flax[3:5]) == "transformer/layer_{3,4}/mlp/linear/w"


def test_a_number_with_a_leading_zero_is_a_name_of_its_own():
    assert rows_of("h.0.w", "h.1.w", "h.00.w", "h.01.w") == ["h.{0,1}.w", "h.00.w", "h.01.w"]
    assert rows_of("l/w", "l_1/w", "l_02/w") == ["l{,_1}/w", "l_02/w"]
    assert collapsed_name(["h.1.w", "h.02.w"]) == "h.1.w"


def test_tensors_that_only_share_a_name_do_not():
    gate = [f"layers/block{f'_{n}' if n else ''}/{part}/0" for n in range(3) for part in ("ffw", "ffw_2")]
    assert rows_of(*gate) == ["layers/block{,_1,_2}/ffw/0", "layers/block{,_1,_2}/ffw_2/0"]
    assert rows_of("a/norm/w", "a/norm_2/w") == ["a/norm/w", "a/norm_2/w"]
    # A dotted name's number is part of it.
    assert rows_of("h.0.norm_1.w", "h.0.norm_2.w") == ["h.0.norm_1.w", "h.0.norm_2.w"]


COMMANDS = ("download", "inspect", "convert", "verify", "diff", "check", "fingerprint", "models", "doctor")
OF_MAPPINGS = tuple(("mappings", name) for name in ("ls", "show", "new", "check"))


@pytest.mark.parametrize("words", [(), *((name,) for name in COMMANDS), *OF_MAPPINGS], ids=" ".join)
def test_help_fits_80_columns(shown, words):
    assert max(map(len, shown(80, *words, "--help"))) <= 80


def test_what_is_said_of_a_conversion_is_broken_between_words(shown, gemma, tmp_path):
    out = tmp_path / "o"
    lines = [_ANSI.sub("", line) for line in shown(60, "convert", gemma, "--to", "litgpt", "-o", out)]
    at = next(number for number, line in enumerate(lines) if line.startswith("plan     "))
    assert lines[at + 1].startswith("         ") and lines[at + 1].strip()
    # A path that is longer than a line stays whole, and so does what is to be pasted.
    said = [line for line in lines if not re.match(r"\r?convert|load|         import", line)]
    assert [line for line in said if len(line) > 60 and str(out) not in line] == []
    assert any(line.endswith(f"load_state_dict({str(out)!r}))") for line in lines)


@pytest.mark.parametrize("command", ["check", "verify"])
def test_findings_are_broken_between_words(shown, call, gemma, tmp_path, command):
    out = tmp_path / "o"
    assert call("convert", gemma, "--to", "litgpt", "-o", out).returncode == 0
    sides = [out] if command == "check" else [gemma, out]
    narrow = plain(shown(40, command, *sides, "--quiet"))
    wide = plain(shown(400, command, *sides, "--quiet"))
    assert max(map(len, narrow)) <= 40 < max(map(len, wide))
    assert " ".join(" ".join(narrow).split()) == " ".join(" ".join(wide).split())


def test_an_error_is_broken_between_words(shown, run, tmp_path):
    there = tmp_path / ("a-directory-with-a-name-that-fills-the-line-by-itself" * 2)
    arguments = ("mappings", "new", "nobody", "--name", "x")
    lines = plain(shown(80, *arguments, code=2))
    assert [line[:7] for line in lines] == ["error: ", "hint: o"] + ["       "] * (len(lines) - 2)
    assert len(lines) > 3
    assert max(map(len, lines)) <= 80
    piped = run(*arguments).stderr.splitlines()
    assert " ".join(line.strip() for line in lines[1:]) == piped[1]
    # A path is never broken, though it be too long.
    (there / "model.safetensors").parent.mkdir()
    said = plain(shown(80, "inspect", there, code=6))
    assert any(str(there) in line for line in said)


def test_a_quoted_command_is_not_broken():
    command = "`porter convert gemma-2b --to litgpt --container pth -o out`"
    lines = wrapped(f"hint: it is written by {command} and nothing else, source's name 'a b c'", 40, 6)
    assert lines[1] == f"      {command}"
    assert lines[-1].endswith("'a b c'")
    assert wrapped("one two", None) == ["one two"]


def test_progress_says_how_much_of_how_much(shown, gemma, tmp_path):
    out = tmp_path / "out"
    shown(100, "convert", gemma, "--to", "litgpt", "-o", out)
    for arguments in (("check", out), ("fingerprint", out), ("verify", gemma, out), ("diff", gemma, out)):
        assert any("100%" in line for line in plain(shown(100, *arguments))), arguments


def test_what_fails_before_a_byte_leaves_no_bar(shown, tmp_path):
    for arguments, code in ((("check", tmp_path / "nothing"), 2), (("download", "gemmma"), 2)):
        assert plain(shown(100, *arguments, code=code))[0].startswith("error: ")


def test_of_a_shortened_name_the_layers_stay_whole():
    name = "transformer/layer_{0..17}/attn/attn_vec_einsum/w"
    assert shorten(name, 42) == "tran…/layer_{0..17}/attn/attn_vec_einsum/w"
    keras = "layers/gemma_decoder_block{,_1,…,_17}/ffw_linear/vars/0"
    for width in range(30, 54):
        shown = shorten(keras, width)
        assert len(shown) <= width
        assert shown.count("{") == shown.count("}"), shown


def test_a_name_too_long_beside_the_rest_has_a_line_of_its_own():
    rows = [["Target", "Shape", "From"], ["short", "[2, 3]", "a"], ["a/name/of/some/length", "[66]", "b"]]
    assert stack(rows, 24, under=(2,)) == [
        "Target  Shape",
        "short   [2, 3]",
        "  from  a",
        "a/name/of/some/length",
        "        [66]",
        "  from  b",
    ]


def test_what_cannot_be_written_is_said_before_any_note(shown, gemma, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").touch()
    said = plain(shown(80, "convert", gemma, "--to", "keras", "-o", tmp_path / "out", code=2))
    # What follows stands below, where a path is longer than the line.
    assert said[0].split()[0] == "error:"
