"""What a person types is understood, or answered with what to type instead."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from porter.errors import PorterError, UsageError
from porter.sources.hub_addresses import repository_at
from porter.sources.names import HubReference, at_revision, resolve
from porter.wording import typed

COMMIT = "0123456789abcdef0123456789abcdef01234567"


# --- sources -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "repo", "revision"),
    [
        ("https://huggingface.co/google/gemma-2b", "google/gemma-2b", None),
        ("http://www.huggingface.co/google/gemma-2b/?library=x#files", "google/gemma-2b", None),
        ("hf.co/google/gemma-2b", "google/gemma-2b", None),
        ("huggingface.co/google/gemma-2b/tree/main", "google/gemma-2b", None),
        ("https://huggingface.co/google/gemma-2b/tree/v1.0", "google/gemma-2b", "v1.0"),
        (
            "https://huggingface.co/google/gemma-2b/blob/refs%2Fpr%2F3/config.json",
            "google/gemma-2b",
            "refs/pr/3",
        ),
        ("https://huggingface.co/a/b/resolve/main/model.safetensors.index.json", "a/b", None),
        ("https://huggingface.co/a/b/discussions/4", "a/b", None),
    ],
)
def test_the_address_of_a_models_page_is_the_model(address, repo, revision):
    assert resolve(address) == HubReference(repo, revision)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("https://huggingface.co/datasets/org/name", "org/name"),
        ("https://huggingface.co/google", "org/name"),
        ("https://huggingface.co/a/b/blob/main/b-q4.gguf", "--include b-q4.gguf -o DIR"),
        ("https://huggingface.co/a/b/blob/v2/model-00001-of-00002.safetensors", "a/b@v2"),
        ("https://huggingface.co/a/b/tree/main/sub/folder", "--include 'sub/folder/*'"),
    ],
)
def test_an_address_of_less_or_more_than_a_model_is_answered(address, words):
    with typed(), pytest.raises(UsageError) as error:
        resolve(address)
    assert words in str(error.value)


def test_another_sites_address_is_none_of_the_hub(monkeypatch):
    assert repository_at("https://example.com/google/gemma-2b") is None
    assert repository_at("google/gemma-2b") is None
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example.com")
    assert repository_at("https://mirror.example.com/google/gemma-2b") == "google/gemma-2b"


@pytest.fixture
def cached(tmp_path: Path, gemma: Path) -> Path:
    """A repository's folder in the Hub's cache, with an older snapshot besides."""
    folder = tmp_path / "hub" / "models--google--gemma-2b"
    shutil.copytree(gemma, folder / "snapshots" / COMMIT)
    (folder / "snapshots" / ("f" * 40)).mkdir()
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMIT)
    return folder


def test_a_folder_of_the_hubs_cache_is_its_main(call, cached):
    for path in (cached, cached / "snapshots"):
        done = call("inspect", path)
        assert done.stdout.startswith("google/gemma-2b · gemma (hf)")
    (cached / "refs" / "main").write_text("../../../../etc")
    assert call("inspect", cached).returncode == 2
    shutil.rmtree(cached / "snapshots" / ("f" * 40))
    assert call("inspect", cached).stdout.startswith("google/gemma-2b · gemma (hf)")


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_a_file_beside_the_weights_stands_for_its_folder(call, gemma, file):
    (gemma / "tokenizer_config.json").write_text("{}")
    assert call("inspect", gemma / file).stdout.startswith("tiny-gemma · gemma (hf)")


def test_a_folder_with_one_checkpoint_in_it(call, gemma, tmp_path):
    done = call("convert", gemma.parent, "--to", "litgpt", "-o", tmp_path / "out")
    assert done.returncode == 0
    assert f"took {gemma}, the one checkpoint in {gemma.parent}" in done.stderr
    assert (
        json.loads((tmp_path / "out" / "porter-receipt.json").read_text())["source"]["label"] == "tiny-gemma"
    )


def test_a_folder_with_several_checkpoints_in_it(refused, gemma):
    shutil.copytree(gemma, gemma.parent / "other")
    refused(2, ["inspect", gemma.parent], "2 checkpoints", "tiny-gemma", "other")


@pytest.mark.parametrize("typed", ["tiny-gemm", "Tiny-Gemma", "./tiny_gemma", "source/tiny-gemm"])
def test_a_misspelt_path_beside_a_right_one(run, gemma, typed):
    done = run("inspect", typed, cwd=gemma.parent if "source" not in typed else gemma.parent.parent)
    assert done.returncode == 2
    assert "did you mean" in done.stderr
    assert "tiny-gemma" in done.stderr.partition("did you mean")[2]


def test_one_shard_of_several_is_said(call, save, tensors, config, refused, tmp_path):
    folder = save(tensors, config, shards=2)
    shard = folder / "model-00001-of-00002.safetensors"
    assert "is one shard of 2; for the whole model name its directory" in call("inspect", shard).stderr
    refused(6, ["convert", shard, "--to", "litgpt", "-o", tmp_path / "out"], "is one shard of 2")


def test_a_filter_that_fits_nothing_is_said(call, gemma):
    done = call("inspect", gemma, "--filter", "q_proj")
    assert "no tensor's whole name fits 'q_proj'" in done.stderr
    assert "'*q_proj*' fits model.layers.0.self_attn.q_proj.weight" in done.stderr
    assert "tied to" not in done.stdout
    assert "fits" not in call("inspect", gemma, "--filter", "*q_proj*").stderr


def test_a_revision_belongs_to_the_hub(gemma):
    assert at_revision("gemma-2b", "v1") == "google/gemma-2b@v1"
    assert at_revision("https://huggingface.co/a/b", "v1") == "a/b@v1"
    for source in (None, str(gemma), "a/b@v2"):
        with pytest.raises(UsageError):
            at_revision(source, "v1")


def test_a_revision_is_asked_of_the_hub(hub, tmp_path, gemma):
    commit = hub.server.add("google/gemma-2b", gemma)
    done = hub.porter("inspect", "gemma-2b", "--revision", commit)
    assert "google/gemma-2b · gemma (hf)" in done.stdout
    assert hub.porter("inspect", "gemma-2b", "--revision", "absent").returncode != 0
    page = f"{hub.server.endpoint}/google/gemma-2b/tree/{commit}"
    assert hub.porter("inspect", page).stdout == done.stdout


# --- dialects ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "dialect"),
    [
        ("LitGPT", "litgpt"),
        ("lit_gpt", "litgpt"),
        ("transformers", "hf"),
        ("HuggingFace", "hf"),
        ("keras_hub", "keras"),
        ("jax", "flax"),
        ("Orbax", "flax"),
        ("gemma-pytorch", "gemma_pytorch"),
        ("litgpt_legacy", "litgpt-legacy"),
    ],
)
def test_a_dialect_by_what_people_call_it(call, gemma, word, dialect):
    plan = json.loads(call("convert", gemma, "--to", word, "--dry-run", "--json").stdout)
    assert plan["to"] == dialect


def test_the_sources_dialect_by_what_people_call_it(call, gemma):
    assert "gemma (hf)" in call("inspect", gemma, "--from", "transformers").stdout


@pytest.mark.parametrize(
    ("option", "word", "hint"),
    [
        ("--to", "litgtp", "did you mean litgpt?"),
        ("--to", "karas", "did you mean keras?"),
        ("--to", "safetensors", "hf and litgpt are written in it"),
        ("--to", "pth", "--container pth"),
        ("--to", "pytorch", "hf, litgpt and gemma_pytorch"),
        ("--from", "huggingfase", "did you mean hf?"),
    ],
)
def test_a_dialect_that_is_none(refused, gemma, option, word, hint):
    refused(2, ["convert", gemma, "--dry-run", option, word], word, hint)


def test_gguf_is_not_offered_where_it_cannot_be_written(refused, gemma):
    said = refused(5, ["convert", gemma, "--to", "gguf"], "does not write it", "hf or litgpt or keras")
    assert "convert to" in said


def test_a_source_in_another_dialect_than_the_one_named(refused, gemma):
    refused(2, ["inspect", gemma, "--from", "litgpt"], "not in the dialect litgpt", "--from hf")


def test_without_a_target_all_that_this_source_can_become_are_listed(refused, gemma):
    said = refused(2, ["convert", gemma], "tiny-gemma is gemma, in the dialect hf")
    offered = [line.split()[1] for line in said.splitlines() if line.strip().startswith("--to")]
    assert offered[:4] == ["hf", "litgpt", "keras", "flax"]
    assert "gguf" not in offered


def test_a_target_that_cannot_express_the_source_is_not_offered(refused, save, tensors, config):
    said = refused(2, ["convert", save(tensors, config | {"attention_bias": True})])
    assert "hf" not in [line.split()[1] for line in said.splitlines() if line.strip().startswith("--to")]


def test_a_family_that_is_none(refused, gemma):
    refused(2, ["mappings", "show", "gema"], "did you mean gemma")
    refused(2, ["inspect", gemma, "--family", "lama"], "did you mean llama")


# --- the command line itself -------------------------------------------------------------------------


def test_shared_options_stand_before_or_behind_the_command(call, gemma, tmp_path):
    before = call("--quiet", "convert", gemma, "--to", "litgpt", "-o", tmp_path / "one")
    behind = call("convert", gemma, "--to", "litgpt", "-o", tmp_path / "two", "--quiet")
    assert (before.returncode, before.stderr) == (behind.returncode, behind.stderr) == (0, "")
    # And they are gone with the command that they were said to.
    assert call("convert", gemma, "--to", "litgpt", "-o", tmp_path / "three").stderr != ""


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["convert", "x", "--too", "litgpt"], "did you mean --to?"),
        (["convert", "x", "litgpt"], "--to litgpt"),
        (["convert", "x", "out", "--to", "litgpt"], "-o out"),
        (["convert", "x", "--output", "out"], "-o DIR"),
        (["convert", "x", "--token", "hf_abc"], "hf auth login"),
        (["inspect", "x", "--to", "litgpt"], "--as DIALECT"),
        (["inspect", "x", "y"], "one model at a time"),
        (["konvert", "x"], "did you mean `porter convert`"),
        (["convert", "x", "--to"], "for example --to litgpt"),
        (["inspect", "x", "--color", "pink"], "porter inspect --help"),
        (["--color", "pink", "inspect", "x"], "porter --help"),
    ],
)
def test_what_cannot_be_parsed_is_said_as_every_other_error(refused, arguments, hint):
    said = refused(2, arguments, hint)
    assert said.startswith("error: ")
    assert "hf_abc" not in said


def test_nothing_typed_shows_the_help(call):
    for arguments in ((), ("mappings",)):
        done = call(*arguments)
        assert done.returncode == 2
        assert "Usage: porter" in done.stderr


def test_every_command_has_help_with_examples(call):
    import typer

    from porter.cli.app import app
    from porter.cli.help import described

    def commands(group: object, path: tuple[str, ...]) -> list[tuple[tuple[str, ...], object]]:
        found: list[tuple[tuple[str, ...], object]] = []
        for name, item in getattr(group, "commands", {}).items():
            inside = commands(item, (*path, name))
            found += inside or [((*path, name), item)]
        return found

    for path, command in commands(typer.main.get_command(app), ()):
        shown = call(*path, "--help")
        assert shown.returncode == 0
        for sign in ("<", "[[", "╭"):
            assert sign not in shown.stdout, path
        _, examples = described(command)
        assert examples, f"{path} has no examples"
        # A key to sign with is openssl's.
        assert all(line.startswith(("porter ", "openssl ")) for line in examples)
        assert any(line.startswith(f"porter {' '.join(path)}") for line in examples), path
        assert max(map(len, shown.stdout.splitlines())) <= 100


def test_the_options_of_convert_stand_in_groups(call):
    shown = call("convert", "--help").stdout
    order = [
        shown.index(f"\n{group}:") for group in ("What", "Source", "How", "Safety", "Output", "Everywhere")
    ]
    assert order == sorted(order)


def test_models_are_listed_in_users_words(call):
    shown = {line.split()[0]: line for line in call("models").stdout.splitlines()}
    assert "⇄" in shown["Gemma"]
    found = json.loads(call("models", "--json").stdout)["models"]
    gemma = next(one for one in found if one["family"] == "gemma")
    assert (gemma["models"], gemma["short_names"][0]) == ("Gemma 1 and CodeGemma", "gemma-2b")
    assert "gguf" in gemma["read"] and "gguf" not in gemma["written"]
    assert all(one["models"] != one["family"] for one in found), (
        "every family says what its models are called"
    )


def test_python_names_the_same_things(gemma):
    import porter

    assert porter.plan(gemma, to="LitGPT").target_dialect == "litgpt"
    with pytest.raises(PorterError, match="no target was named"):
        porter.plan(gemma)


@pytest.mark.parametrize(
    ("typed_words", "meant"),
    [
        (("konvert",), "porter convert"),
        (("list",), "porter models"),
        (("port", "x"), "porter convert"),
        (("mappings", "shwo", "gemma"), "porter mappings show"),
        (("mappings", "begin"), "porter mappings new"),
        (("mappings", "list"), "porter mappings ls"),
    ],
)
def test_a_command_that_there_is_not_is_answered_with_one_that_there_is(call, typed_words, meant):
    done = call(*typed_words)
    assert done.returncode == 2
    assert f"did you mean `{meant}`?" in done.stderr


def test_the_help_of_a_group_has_examples(call):
    assert "porter mappings show gemma --to keras" in call("mappings", "--help").stdout


@pytest.mark.parametrize(
    ("typed_words", "said"),
    [
        (("download", "gemmma"), "did you mean gemma-"),
        (("download", "--list", "--from", "litgpt"), "not downloaded from 'litgpt'"),
        (("download", "--list", "-o", "x"), "--list downloads nothing"),
        (("convert", "tiny-gemma", "--to", "litgpt", "-o", "/proc/x"), "makes no directories"),
    ],
)
def test_what_cannot_be_is_said_as_it_is(run, gemma, typed_words, said):
    (gemma.parent / "gemma").mkdir()
    words = [str(gemma) if word == gemma.name else word for word in typed_words]
    done = run(*words, cwd=gemma.parent)
    assert done.returncode == 2
    assert said in done.stderr
    assert "did you mean gemma?" not in done.stderr


def test_of_a_directory_that_there_is_not_the_doctor_says_so(call):
    assert "no nope yet" in call("doctor", "nope").stderr.replace("directory ", "")


def test_a_filter_says_of_how_many(call, gemma):
    shown = call("inspect", gemma, "--filter", "*norm*").stdout
    assert "7 of 29 tensors" in shown
    assert "KV cache" not in shown
    assert "KV cache" in call("inspect", gemma).stdout


def test_arrays_of_one_folder_are_one_line_in_a_pipe(call, gemma, tmp_path):
    done = call("convert", gemma, "--to", "flax", "-o", tmp_path / "flax")
    assert done.stderr.count("\nconvert ") == 1
    assert "transformer/" in done.stderr
    assert "wrote" in done.stdout
    assert "transformer/layer_0" not in done.stdout


def test_what_is_typed_passes_no_validation_library(gemma):
    """Its import would take a third of the time of an inspect."""
    code = (
        "import sys; sys.argv = ['porter', 'inspect', sys.argv[1], '--filter', '*', '--quiet']\n"
        "from porter.cli import main\n"
        "try:\n    main()\nfinally:\n    assert 'pydantic' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code, gemma], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("typed_words", "said"),
    [
        (("mappings", "check", "--against", "porter", "--require", "x"), "--require"),
        (("diff", "a", "b", "--atol", "much"), "--atol"),
        (("--color", "blue", "models"), "'blue' is not one of 'auto', 'always', 'never'"),
        (("verify", "a"), "missing argument 'OUT'"),
    ],
)
def test_a_value_of_another_kind_is_said(call, typed_words, said):
    done = call(*typed_words)
    assert done.returncode == 2
    assert said in done.stderr


def test_an_empty_name_is_not_the_directory_here(run, gemma):
    for words in (("inspect", ""), ("convert", "", "--to", "litgpt", "-o", "x"), ("fingerprint", "")):
        done = run(*words, cwd=gemma)
        assert done.returncode == 2, words
        assert "an empty text names no checkpoint" in done.stderr
    assert run("inspect", ".", cwd=gemma).returncode == 0


def test_an_option_that_is_missing_is_shown_by_example(call):
    assert "for example porter mappings new llama --name mine" in call("mappings", "new", "llama").stderr
