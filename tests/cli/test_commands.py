"""What the commands print, where they print it, and what a conversion leaves on disk."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest

import porter

# --- inspect -----------------------------------------------------------------------------------------


def rows(text: str) -> dict[str, list[str]]:
    """The lines of a table by their first word."""
    return {line.split()[0]: line.split() for line in text.splitlines() if line.strip()}


def test_inspect_collapses_layers_into_one_row(call, gemma):
    done = call("inspect", gemma)
    assert done.returncode == 0
    title, header, *_ = done.stdout.splitlines()
    # 47*22 + 3 * (22 + 30*22 + 2*10*22 + 22*30 + 22 + 3*31*22) + 22 parameters, 4 bytes each.
    assert title == "tiny-gemma · gemma (hf) · 1 file · 29 tensors · 12.61 K parameters · F32 · 50.42 kB"
    assert header.split() == ["Tensor", "Shape", "Dtype", "×", "Params", "%"]
    found = rows(done.stdout)
    assert found["model.embed_tokens.weight"][1:] == ["[47,", "22]", "F32", "1", "1.0", "K", "8.2"]
    assert found["model.layers.{0..2}.self_attn.k_proj.weight"][1:5] == ["[10,", "22]", "F32", "3"]
    assert found["lm_head.weight"][1:] == ["tied", "to", "model.embed_tokens.weight"]
    assert sum(line.startswith("model.") for line in done.stdout.splitlines()) == 11


def test_inspect_full_has_a_row_per_tensor(call, gemma, tensors):
    found = rows(call("inspect", gemma, "--full").stdout)
    assert set(tensors) <= set(found)


def test_inspect_filter_counts_only_what_fits(call, gemma):
    done = call("inspect", gemma, "--full", "--filter", "*.1.mlp.*")
    assert sum(line.startswith("model.") for line in done.stdout.splitlines()) == 3
    assert "3 of 29 tensors" in done.stdout.splitlines()[0]


def test_inspect_json(call, gemma, tensors):
    found = json.loads(call("inspect", gemma, "--json").stdout)
    assert found["schema"] == 1
    assert (found["family"], found["dialect"], found["container"]) == ("gemma", "hf", "safetensors")
    assert found["ties"] == {"lm_head.weight": "model.embed_tokens.weight"}
    assert found["files"] == {"model.safetensors": (gemma / "model.safetensors").stat().st_size}
    assert {t["name"]: t["shape"] for t in found["tensors"]} == {
        name: list(tensor.shape) for name, tensor in tensors.items()
    }
    assert found["parameters"] == sum(tensor.size for tensor in tensors.values())
    assert found["nbytes"] == 4 * found["parameters"]
    assert found["hyperparameters"]["n_kv_head"] == 2


def test_inspect_breaks_dtypes_down_where_there_are_several(call, save, tensors, config):
    tensors = {name: t.astype(np.float16) if t.ndim == 2 else t for name, t in tensors.items()}
    done = call("inspect", save(tensors, config))
    assert "F16, F32" in done.stdout.splitlines()[0]
    found = rows(done.stdout)
    assert found["Dtype"][:2] == ["Dtype", "Tensors"]
    assert (found["F16"][:2], found["F32"][:2]) == (["F16", "22"], ["F32", "7"])


def test_inspect_without_a_source_looks_here(run, gemma):
    done = run("inspect", cwd=gemma)
    assert done.returncode == 0
    assert done.stdout.startswith("tiny-gemma · gemma (hf)")
    assert done.stderr.startswith("note: no source named: ")
    assert str(gemma) in done.stderr


def test_inspect_without_a_source_where_there_is_none(run):
    done = run("inspect")
    assert done.returncode == 2
    assert "no source was named" in done.stderr


def test_inspect_shows_what_it_cannot_name(call, save, tensors, config):
    done = call("inspect", save(tensors, config | {"model_type": "walrus"}))
    assert done.returncode == 0
    assert "unknown family" in done.stdout.splitlines()[0]
    assert "no mapping table" in done.stderr


# --- convert -----------------------------------------------------------------------------------------


def test_dry_run_writes_nothing(call, tree, gemma, tmp_path):
    (tmp_path / "here").mkdir()
    before = tree(tmp_path)
    done = call("convert", gemma, "--to", "litgpt", "--dry-run")
    assert done.returncode == 0
    assert "29 → 24 tensors" in done.stdout
    assert "transformer.h.{0..2}.attn.qkv.weight" in done.stdout
    assert (
        "model.layers.{0..2}.self_attn.q_proj.weight + model.layers.{0..2}.self_attn.k_proj.weight"
        in done.stdout
    )
    assert "lit_model.safetensors" in done.stdout
    assert "model_config.yaml" in done.stdout
    assert tree(tmp_path) == before


def test_dry_run_json_lists_every_copy(call, tree, gemma, tmp_path, tensors):
    (tmp_path / "here").mkdir()
    before = tree(tmp_path)
    done = call("convert", gemma, "--to", "litgpt", "--dry-run", "--json")
    plan = json.loads(done.stdout)
    assert tree(tmp_path) == before
    assert plan["grade"] == "exact"
    assert plan["hash"] == porter.plan(gemma, to="litgpt").hash
    # Every source tensor once, and the embedding once more for the head.
    copied = sorted(copy["source"] for copy in plan["copies"])
    assert copied == sorted([*tensors, "model.embed_tokens.weight"])


def test_convert_makes_what_the_dry_run_says(call, run, gemma, tmp_path, read, tensors):
    out = tmp_path / "here" / "tiny-gemma-litgpt"
    done = run("convert", gemma, "--to", "litgpt")  # the name is the default
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].startswith(f"wrote    {out}/: lit_model.safetensors")
    # Heads of 5 are nothing that can be rotated, so that porter's own model is not offered.
    assert done.stdout.splitlines()[1].startswith("load     import porter, litgpt; model = litgpt.GPT(")
    assert "plan     29 → 24 tensors" in done.stderr
    assert sorted(path.name for path in out.iterdir()) == [
        "generation_config.json",
        "lit_model.safetensors",
        "model_config.yaml",
        "porter-receipt.json",
    ]
    made = read(out / "lit_model.safetensors")
    assert np.array_equal(made["lm_head.weight"], tensors["model.embed_tokens.weight"])
    assert np.array_equal(
        made["transformer.h.2.attn.qkv.weight"],
        np.concatenate([tensors[f"model.layers.2.self_attn.{part}_proj.weight"] for part in "qkv"]),
    )
    assert call("inspect", out).stdout.startswith("tiny-gemma-litgpt · gemma (litgpt)")


def test_the_receipt_says_what_was_made_of_what(call, gemma, tmp_path):
    out = tmp_path / "out"
    printed = json.loads(call("convert", gemma, "--to", "litgpt", "-o", out, "--json").stdout)
    receipt = json.loads((out / "porter-receipt.json").read_text())
    assert receipt["schema"] == 2
    assert receipt["plan"] == printed["hash"]
    assert (receipt["family"], receipt["from"], receipt["to"]) == ("gemma", "hf", "litgpt")
    assert receipt["grade"] == "exact"
    assert receipt["tables"]["canonical"] == "gemma version 2"
    assert receipt["tools"]["porter"] == porter.__version__
    source = gemma / "model.safetensors"
    assert receipt["source"]["label"] == "tiny-gemma"
    assert receipt["source"]["files"]["model.safetensors"]["size"] == source.stat().st_size
    names = {path.name for path in out.iterdir()} - {"porter-receipt.json"}
    assert set(receipt["files"]) == names
    for name in names:
        # A block that was shared was never read, and has no digest.
        digest = receipt["files"][name]["sha256"]
        assert receipt["files"][name]["size"] == (out / name).stat().st_size
        assert digest in (None, f"sha256:{hashlib.sha256((out / name).read_bytes()).hexdigest()}")
        assert printed["files"][name] == {"size": (out / name).stat().st_size, "sha256": digest}


def test_force_replaces_what_porter_wrote(call, gemma, tmp_path):
    out = tmp_path / "out"
    assert call("convert", gemma, "--to", "litgpt", "-o", out).returncode == 0
    (out / "mine.txt").write_text("stays")
    assert call("convert", gemma, "--to", "litgpt", "-o", out).returncode == 2
    refused = call("convert", gemma, "--to", "hf", "-o", out, "--force")
    assert (refused.returncode, "does not list mine.txt" in refused.stderr) == (2, True)
    assert (out / "mine.txt").read_text() == "stays" and (out / "lit_model.safetensors").exists()
    (out / "mine.txt").unlink()
    assert call("convert", gemma, "--to", "hf", "-o", out, "--force").returncode == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "porter-receipt.json",
    ]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(("umask", "file", "directory"), [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700)])
def test_modes_are_those_that_a_user_gets(call, gemma, tmp_path, umask, file, directory):
    before = os.umask(umask)
    try:
        call("convert", gemma, "--to", "litgpt", "-o", tmp_path / "out")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == directory
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out").iterdir()} == {file}


def test_a_tensor_is_dropped_only_on_request(call, save, tensors, config, tmp_path):
    tensors["model.layers.0.adapter.weight"] = np.zeros((3, 4), np.float32)
    source = save(tensors, config)
    options = ("--to", "litgpt", "-o", tmp_path / "out", "--allow-unmapped", "*.adapter.*")
    done = call("convert", source, *options)
    assert done.returncode == 0
    assert "dropped on request: model.layers.0.adapter.weight" in done.stderr
    assert "1 dropped, 1 on request" in done.stderr


def test_a_tied_head_may_be_left_out(call, gemma, tmp_path, read):
    out = tmp_path / "out"
    call("convert", gemma, "--to", "litgpt", "--tied", "omit", "-o", out)
    assert "lm_head.weight" not in read(out / "lit_model.safetensors")
    call("convert", out, "--to", "hf", "-o", tmp_path / "back")
    assert "lm_head.weight" not in read(tmp_path / "back" / "model.safetensors")


def test_equal_copies_of_a_tie_become_one(call, save, tensors, config, tmp_path, read):
    source = save({**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"].copy()}, config)
    done = call("convert", source, "--to", "hf", "-o", tmp_path / "out")
    assert done.returncode == 0
    assert "1 tie dropped" in done.stderr
    assert set(read(tmp_path / "out" / "model.safetensors")) == set(tensors)
    assert "(stored twice)" in call("inspect", source).stdout


# --- streams and colours -----------------------------------------------------------------------------


def test_data_go_to_stdout_and_remarks_to_stderr(call, gemma, tmp_path):
    table = call("inspect", gemma)
    assert table.stderr == ""
    done = call("convert", gemma, "--to", "litgpt", "-o", tmp_path / "out")
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["wrote", "load"]
    assert [line.split()[0] for line in done.stderr.splitlines()] == ["note:", "plan", "convert", "note:"]


def test_quiet_leaves_data_alone(call, gemma, tmp_path):
    done = call("convert", gemma, "--to", "litgpt", "-o", tmp_path / "out", "--quiet")
    assert done.stderr == ""
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["wrote", "load"]


def test_quiet_does_not_silence_errors(call, tmp_path):
    assert "error: " in call("inspect", tmp_path / "nowhere", "--quiet").stderr


def test_colours_are_for_those_who_ask(run, tmp_path):
    nowhere = ("inspect", tmp_path / "nowhere")
    assert "\x1b[" not in run(*nowhere).stderr
    assert "\x1b[1;31merror:\x1b[0m" in run(*nowhere, "--color", "always").stderr
    assert "\x1b[1;31merror:\x1b[0m" in run(*nowhere, "--color", "always", env={"NO_COLOR": "1"}).stderr
    assert "\x1b[" not in run(*nowhere, env={"NO_COLOR": "1"}).stderr
    assert "\x1b[" not in run(*nowhere, "--color", "never").stderr


def test_colours_on_a_terminal_obey_no_color(monkeypatch):
    from porter.cli import output

    class Terminal:
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(output, "settings", output.Settings())
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert output.colored(Terminal())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not output.colored(Terminal())
    monkeypatch.setattr(output.settings, "color", "always")
    assert output.colored(Terminal())
    monkeypatch.setattr(output.settings, "color", "never")
    monkeypatch.delenv("NO_COLOR")
    assert not output.colored(Terminal())


def test_piped_tables_are_not_cut(run, save, tensors, config):
    long = f"model.{'very_' * 60}long.weight"
    tensors[long] = np.zeros((3, 4), np.float32)
    source = save(tensors, config)
    for env in ({"COLUMNS": "40"}, {}):
        assert f"\n{long}  " in run("inspect", source, env=env).stdout


def test_debug_shows_a_traceback_and_changes_no_exit_code(run, tmp_path):
    done = run("inspect", tmp_path / "nowhere", "--debug")
    assert done.returncode == 2
    assert "Traceback (most recent call last)" in done.stderr
    assert "there is no checkpoint at" in done.stderr
    assert "Traceback" not in run("inspect", tmp_path / "nowhere").stderr


# --- mappings, and porter itself ---------------------------------------------------------------------


def test_mappings_ls(call):
    listed = [line.split()[:2] for line in call("mappings", "ls").stdout.splitlines()]
    assert ["gemma", "hf"] in listed
    assert ["decoder", "litgpt"] in listed
    found = json.loads(call("mappings", "ls", "--json").stdout)
    assert found["schema"] == 1
    assert {(t["family"], t["dialect"]) for t in found["tables"]} >= {("llama", "hf"), ("decoder", "litgpt")}


def test_mappings_show(call, gemma):
    shown = call("mappings", "show", "gemma").stdout
    lines = {line.split()[0]: line for line in shown.splitlines()}
    o_proj = lines["model.layers.{layer}.self_attn.o_proj.weight"]
    assert "d_model (n_kv_head q_per_kv head_dim)" in o_proj
    assert o_proj.endswith("transformer.h.{layer}.attn.proj.weight")
    sized = call("mappings", "show", "gemma", "--config", gemma / "config.json").stdout
    assert "d_model (n_kv_head q_per_kv head_dim) = [22, 30]" in sized
    assert "q_proj.bias" not in sized  # this config has none
    found = json.loads(call("mappings", "show", "gemma", "--from", "gguf", "--to", "hf", "--json").stdout)
    assert {"blk.{layer}.attn_q.weight", "token_embd.weight"} <= {rule["source"] for rule in found["rules"]}


@pytest.mark.parametrize("arguments", [("walrus",), ("gemma", "--to", "latin"), ("gemma", "--from", "latin")])
def test_mappings_show_refuses_what_it_does_not_know(refused, arguments):
    refused(2, ["mappings", "show", *arguments], arguments[-1])


def test_mappings_check(call, tmp_path):
    table = tmp_path / "mine.toml"
    table.write_text('extends = "gemma/litgpt"\nfamily = "gemma"\ndialect = "mine"\n')
    done = call("mappings", "check", table)
    assert (done.returncode, done.stdout) == (0, "")
    assert f"ok       {table}: gemma/mine, 12 rules" in done.stderr


def test_mappings_check_wants_as_many_configurations_as_are_required(monkeypatch):
    """Each configuration is a row, whatever is wrong with it; --require counts those that are ok."""
    from porter.verification import drift

    configs = list(drift._litgpt_configs())[:2]
    # A LayerNorm on q has a bias that no table knows.
    broken = configs[0][1] | {"name": "broken", "norm_qk": True}
    nobodys = configs[0][1] | {"name": "nobodys", "scale_embeddings": True}
    monkeypatch.setattr(
        drift, "_litgpt_configs", lambda: [*configs, ("nobodys", nobodys), ("broken", broken)]
    )
    from porter.tables import load_families

    reports = drift.compare("litgpt", load_families(), every=True)
    named = {report.configuration: report for report in reports if report.configuration[0] != "("}
    assert [named[name].result for name, _ in configs] == ["ok", "ok"]
    assert named["nobodys"].result == "no family" and "scale_embeddings" in named["nobodys"].problems[0]
    assert named["broken"].result == "differs"


def test_mappings_check_against_the_model_that_porter_ships(call):
    done = call("mappings", "check", "--against", "porter")
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()[1:]]
    assert {row[-1] for row in rows if row[1] != "deepseek_v3"} == {"ok"}
    # Latent attention is what it leaves to LitGPT.
    assert [row[-2:] for row in rows if row[1] == "deepseek_v3"] == [["not", "implemented"]]


def test_porter_says_its_version_and_its_commands(run):
    assert run("--version").stdout == f"porter {porter.__version__}\n"
    helped = run("--help")
    assert helped.returncode == 0
    assert all(word in helped.stdout for word in ("inspect", "convert", "mappings"))


def test_help_inspect_and_convert_do_without_torch(run, gemma, tmp_path):
    (tmp_path / "torch.py").write_text("raise RuntimeError('torch was imported')\n")
    env = {"PYTHONPATH": str(tmp_path)}
    assert run("--help", env=env).returncode == 0
    assert run("inspect", gemma, env=env).returncode == 0
    assert run("convert", gemma, "--to", "litgpt", "--dry-run", env=env).returncode == 0
    done = run("convert", gemma, "--to", "litgpt", "-o", tmp_path / "out", env=env)
    assert done.returncode == 0, done.stderr
    cast = ("convert", gemma, "--to", "litgpt", "--dtype", "float16", "-o")
    assert run(*cast, tmp_path / "cast", env=env).returncode == 0
    # The control: what does need torch fails.
    assert "torch was imported" in run(*cast, tmp_path / "live", "--target-model", "litgpt", env=env).stderr


def test_a_pipe_may_be_closed_early(gemma, tmp_path):
    import subprocess
    import sys

    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m porter inspect --full '{gemma}' | head -n 1"],
        capture_output=True,
        text=True,
        cwd=Path(tmp_path),
    )
    assert done.stdout.startswith("tiny-gemma")
    assert done.stderr == ""
