"""How a source's text is read: paths, short names, repositories."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from porter.errors import UsageError
from porter.sources.names import ALIASES, HubReference, find_source, resolve


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("gemma-2b", HubReference("google/gemma-2b")),
        ("gemma-2b@v1.1", HubReference("google/gemma-2b", "v1.1")),
        ("hf://gemma-2b", HubReference("google/gemma-2b")),
        ("gemma-3-1b", HubReference("google/gemma-3-1b-pt")),
        ("org/name", HubReference("org/name")),
        ("org/name.v2@refs/pr/4", HubReference("org/name.v2", "refs/pr/4")),
        ("hf://org/name@0123abc", HubReference("org/name", "0123abc")),
    ],
)
def test_what_names_a_repository(source: str, expected: HubReference) -> None:
    assert resolve(source) == expected


@pytest.mark.parametrize(
    "source",
    [
        *("./gemma-2b", "../x/y", "/a/b", "~/models/x", "a/b/c", "model.gguf", "out/model.safetensors"),
        *("C:\\x", "kaggle://google/gemma", "org/", ""),
    ],
)
def test_what_reads_as_a_path_names_none(source: str) -> None:
    assert resolve(source) is None


@pytest.mark.parametrize(
    "source", ["hf://", "hf://a/b/c", "hf://a/../b", "org/name@", "org/name@a..b", "hf://a/b@-x"]
)
def test_a_malformed_address_is_an_error(source: str) -> None:
    with pytest.raises(UsageError):
        resolve(source)


def test_an_unknown_short_name_gets_its_neighbours_named() -> None:
    with pytest.raises(UsageError) as caught:
        resolve("gema-2b")
    assert caught.value.hint is not None and "gemma-2b" in caught.value.hint
    with pytest.raises(UsageError) as caught:
        resolve("zzzzzzzz")
    assert caught.value.hint is not None and "did you mean" not in caught.value.hint


def test_a_path_wins_over_an_alias(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_source("gemma-2b") == HubReference("google/gemma-2b")
    assert find_source("google/gemma-2b") == HubReference("google/gemma-2b")
    (tmp_path / "gemma-2b").mkdir()
    assert find_source("gemma-2b") == Path("gemma-2b")
    assert find_source("hf://gemma-2b") == HubReference("google/gemma-2b")
    # A Path is never a name, and a path that is not there stays one, so that its opener can say so.
    assert find_source(Path("gemma-7b")) == Path("gemma-7b")
    assert find_source("./nothing") == Path("./nothing")


def test_the_table_has_every_release_once() -> None:
    sizes = {
        "gemma-": ["2b", "2b-it", "7b", "7b-it", "1.1-2b-it", "1.1-7b-it"],
        "codegemma-": ["2b", "7b", "7b-it", "1.1-2b", "1.1-7b-it"],
        "gemma-2-": ["2b", "2b-it", "2b-jpn-it", "9b", "9b-it", "27b", "27b-it"],
        "gemma-3-": ["270m", "270m-it", "1b", "1b-pt", "1b-it"],
    }
    assert set(ALIASES) == {start + end for start, ends in sizes.items() for end in ends}
    families = {"gemma-2-": "gemma2", "gemma-3-": "gemma3_text"}
    for start, ends in sizes.items():
        for end in ends:
            entry = ALIASES[start + end]
            assert entry.family == families.get(start, "gemma")
            assert entry.licence_url == f"https://huggingface.co/{entry.repo}"


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused_in_words(text: str) -> None:
    try:
        found = resolve(text)
    except UsageError as error:
        assert error.message
    else:
        assert found is None or (found.repo.count("/") == 1 and ".." not in (found.revision or ""))


def test_reading_a_name_does_not_import_the_hubs_client() -> None:
    code = "import sys, porter.sources.names, porter.api.download; sys.exit('huggingface_hub' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
