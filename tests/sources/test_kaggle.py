"""How models on Kaggle are named, where their copies lie, and what is said when fetching one fails."""

from __future__ import annotations

import errno
import importlib.util
import logging
import os
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

from porter.api.download import download
from porter.api.download_kaggle import kaggle_source
from porter.api.downloaded import Download
from porter.errors import AccessError, DifferenceError, PorterError, UnsupportedError, UsageError
from porter.sources.kaggle import kaggle_models as kaggle
from porter.sources.kaggle.kaggle_models import KERAS_PRESETS, KaggleReference, cached, keras_preset, parse
from porter.sources.local import locate

TOKEN = "KGAT_averysecrettoken"
GEMMA = KaggleReference("keras", "gemma", "keras", "gemma_2b_en", 3)


# --- names -------------------------------------------------------------------------------------------


def test_an_address() -> None:
    assert parse("kaggle://keras/gemma/keras/gemma_2b_en/3") == GEMMA
    assert parse("kaggle://keras/gemma/keras/gemma_2b_en") == KaggleReference(*GEMMA.name.split("/"))
    assert parse("kaggle://a/b/pyTorch/1.1-2b-it") == KaggleReference("a", "b", "pyTorch", "1.1-2b-it")
    assert GEMMA.label == "kaggle://keras/gemma/keras/gemma_2b_en/3"
    assert GEMMA.page == "https://www.kaggle.com/models/keras/gemma"


@pytest.mark.parametrize("source", ["gemma-2b", "keras/gemma", "hf://keras/gemma", "/kaggle://a/b/c/d"])
def test_what_is_no_address_of_kaggle(source: str) -> None:
    assert parse(source) is None


@pytest.mark.parametrize(
    "rest",
    [
        "",
        "a",
        "a/b/c",
        "a/b/c/d/0",
        "a/b/c/d/x",
        "a/b/c/d/3/e",
        "a/../c/d",
        "a/b/c/d/",
        "a//c/d",
        "a/b/c/d?x",
    ],
)
def test_an_address_that_is_none_is_refused(rest: str) -> None:
    with pytest.raises(UsageError, match="no address of a model on Kaggle"):
        parse(f"kaggle://{rest}")


def test_a_release_is_found_by_any_of_its_names() -> None:
    for source in ("gemma-2b", "google/gemma-2b", "hf://google/gemma-2b", "gemma_2b_en", GEMMA.label):
        assert keras_preset(source) == GEMMA
    assert keras_preset("google/gemma-2b-keras") is None, "a repository of its own"


@pytest.mark.parametrize("source", ["gemma-2-2b-jpn-it", "gemma-2c"])
def test_a_release_without_a_preset(source: str) -> None:
    with pytest.raises(UsageError, match="no Keras preset is known") as caught:
        keras_preset(source)
    assert caught.value.hint is not None and "did you mean gemma-2" in caught.value.hint


def test_only_two_dialects_are_downloaded() -> None:
    assert kaggle_source("gemma-2b", None) is None
    assert kaggle_source("gemma-2b", "hf") is None
    assert kaggle_source("gemma-2b", "keras") == GEMMA
    with pytest.raises(UsageError, match="'litgpt'"):
        kaggle_source("gemma-2b", "litgpt")


def test_the_table_is_that_of_kerashub() -> None:
    """Handles and versions from the registry of the installed KerasHub, read as the two dicts that it is."""
    found = importlib.util.find_spec("keras_hub")
    if found is None or not found.submodule_search_locations:
        pytest.skip("KerasHub is not installed")
    models = Path(found.submodule_search_locations[0]) / "src" / "models"
    registry: dict[str, Any] = {}
    for family in ("gemma", "gemma3"):
        registry |= runpy.run_path(str(models / family / f"{family}_presets.py"))["backbone_presets"]
    for alias, reference in KERAS_PRESETS.items():
        assert registry[reference.variation]["kaggle_handle"] == reference.label, alias


# --- the cache ---------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "kaggle"))
    return tmp_path / "kaggle" / "models" / GEMMA.name


def put(folder: Path, version: int, *, complete: bool = True) -> Path:
    (folder / str(version)).mkdir(parents=True)
    (folder / str(version) / "config.json").write_text("{}")
    if complete:
        (folder / f"{version}.complete").touch()
    return folder / str(version)


def test_a_complete_copy_is_found_and_the_newest_where_none_is_named(cache: Path) -> None:
    assert cached(GEMMA) is None
    put(cache, 2)
    path = put(cache, 10)
    put(cache, 11, complete=False)
    newest = KaggleReference(*GEMMA.name.split("/"))
    found = cached(newest)
    assert found is not None
    assert (found[0].version, found[1]) == (10, path)
    assert cached(GEMMA) is None
    assert cached(KaggleReference(*GEMMA.name.split("/"), version=11)) is None, "it was not finished"
    assert locate(path).label == "keras/gemma_2b_en"


def test_the_cache_is_where_the_client_has_it(cache: Path) -> None:
    client = importlib.import_module("kagglehub.cache")
    handle = importlib.import_module("kagglehub.handle").parse_model_handle(GEMMA.handle)
    path = put(cache, 3, complete=False)
    assert client.get_cached_path(handle) == str(path)
    assert cached(GEMMA) is None
    client.Cache().mark_as_complete(handle)
    assert cached(GEMMA) == (GEMMA, path)


def test_offline_the_copy_is_enough(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="porter is offline"):
        download("gemma-2b", source_dialect="keras", offline=True)
    path = put(cache, 3)
    # No client is needed for what is there.
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    found = download("gemma-2b", source_dialect="keras", offline=True)
    assert (found.repo, found.commit, found.path, found.bytes_fetched) == (GEMMA.name, "3", str(path), 0)
    assert [(file.name, file.status) for file in found.files] == [("config.json", "cached")]
    assert download("gemma-2b", source_dialect="keras") == found, "a version never changes"


def test_into_a_directory_nothing_of_yours_is_overwritten(cache: Path, tmp_path: Path) -> None:
    put(cache, 3)
    made: Download = download(GEMMA.label, out=tmp_path / "out")
    assert (tmp_path / "out" / "config.json").read_text() == "{}"
    assert download(GEMMA.label, out=tmp_path / "out") == made
    (tmp_path / "out" / "config.json").write_text("mine")
    with pytest.raises(UsageError, match="is in the way"):
        download(GEMMA.label, out=tmp_path / "out")
    assert (tmp_path / "out" / "config.json").read_text() == "mine"


@pytest.mark.parametrize(
    ("revision", "said"), [("main", "has versions"), ("4", "two versions"), ("0", "has")]
)
def test_versions_are_numbers(cache: Path, revision: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        download(GEMMA.label, revision=revision)


def test_a_version_may_be_named_beside_a_short_name(cache: Path) -> None:
    put(cache, 4)
    assert download("gemma-2b", source_dialect="keras", revision="4").commit == "4"


def test_patterns_are_for_the_hub(cache: Path) -> None:
    with pytest.raises(UsageError, match="as a whole"):
        download(GEMMA.label, include=["*.json"])


def test_without_the_client_the_extra_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with pytest.raises(UnsupportedError) as caught:
        download("gemma-2b", source_dialect="keras")
    assert caught.value.hint is not None
    assert "pip install 'kagglehub>=0.3' (the extra kaggle)" in caught.value.hint
    assert "google/gemma-2b-keras" in caught.value.hint, "the same preset lies on the Hub"


# --- errors ------------------------------------------------------------------------------------------


@pytest.fixture
def failing(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Runs a download whose client raises; what porter makes of that is returned."""
    kagglehub = importlib.import_module("kagglehub")
    for name in [name for name in os.environ if name.startswith("KAGGLE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path))

    def run(error: Exception, token: str | None = TOKEN) -> PorterError:
        if token is not None:
            monkeypatch.setenv("KAGGLE_API_TOKEN", token)

        def model_download(handle: str) -> str:
            assert handle == GEMMA.handle
            print("Authorization: Bearer", token)
            logging.getLogger("kagglehub").error("downloading with %s", token)
            raise error

        monkeypatch.setattr(kagglehub, "model_download", model_download)
        with pytest.raises(PorterError) as caught:
            download("gemma-2b", source_dialect="keras")
        assert TOKEN not in str(caught.value)
        assert caught.value.__cause__ is None and caught.value.__suppress_context__
        return caught.value

    return run


def http(status: int, message: str = "the client's own words") -> Exception:
    import requests
    from kagglehub.exceptions import KaggleApiHTTPError

    response = requests.Response()
    response.status_code = status
    return KaggleApiHTTPError(message, response=response)


@pytest.mark.parametrize("status", [401, 403])
def test_no_credentials(failing: Any, status: int) -> None:
    problem = failing(http(status), token=None)
    assert (type(problem), problem.exit_code) == (AccessError, 4)
    assert "there are none" in problem.message
    for name in ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY", "kaggle.json"):
        assert name in problem.cause
    assert GEMMA.page in problem.hint


def test_no_consent(failing: Any) -> None:
    problem = failing(http(403))
    assert problem.exit_code == 4
    assert "licence has not been accepted" in problem.cause
    assert "https://www.kaggle.com/models/keras/gemma" in problem.hint


def test_credentials_that_are_not_valid(failing: Any) -> None:
    problem = failing(http(401))
    assert problem.exit_code == 4
    assert "refuses the credentials" in problem.message
    assert "licence" not in str(problem)


def test_credentials_that_cannot_be_read(failing: Any, tmp_path: Path) -> None:
    (tmp_path / "kaggle.json").write_text("{ no JSON")
    problem = failing(AssertionError("never reached"), token=None)
    assert problem.exit_code == 4
    assert "cannot be read" in problem.message and "kaggle.json" in problem.cause


def test_username_and_key_are_credentials(failing: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAGGLE_USERNAME", "anna")
    monkeypatch.setenv("KAGGLE_KEY", TOKEN)
    assert "licence has not been accepted" in failing(http(403), token=None).cause


def test_an_unknown_model_or_version(failing: Any) -> None:
    problem = failing(http(404))
    assert (type(problem), problem.exit_code) == (UsageError, 2)
    assert GEMMA.label in problem.message and GEMMA.page in problem.hint


def test_the_network(failing: Any) -> None:
    import requests

    signed = f"no route to https://storage.test/a?X-Goog-Signature=signed-for with Bearer {TOKEN}"
    for error in (requests.ConnectionError(signed), requests.Timeout(signed), ConnectionError(signed)):
        problem = failing(error)
        assert (type(problem), problem.exit_code) == (PorterError, 1)
        assert "cannot reach Kaggle" in problem.message
        assert "signed-for" not in str(problem)
        assert "https://storage.test/a" in problem.cause


@pytest.mark.parametrize(("status", "said"), [(429, "pause"), (500, "status 500"), (418, "status 418")])
def test_other_answers(failing: Any, status: int, said: str) -> None:
    problem = failing(http(status))
    assert problem.exit_code == 1
    assert said in problem.message


def test_a_full_disk_and_a_broken_file(failing: Any) -> None:
    from kagglehub.exceptions import DataCorruptionError

    full = failing(OSError(errno.ENOSPC, "No space left on device"))
    assert full.exit_code == 1 and "KAGGLEHUB_CACHE" in full.hint
    broken = failing(DataCorruptionError("MD5"))
    assert (type(broken), broken.exit_code) == (DifferenceError, 3)


def test_nothing_that_the_client_says_is_shown(failing: Any, capfd: pytest.CaptureFixture[str]) -> None:
    failing(http(403))
    shown = capfd.readouterr()
    assert shown.out == "" and TOKEN not in shown.err


def test_what_is_no_error_of_the_client_passes_through(failing: Any) -> None:
    """Negative control: a mistake of porter's own must not look like one of the network."""
    with pytest.raises(RuntimeError):
        failing(RuntimeError("a mistake"))


def test_the_scheme_is_told_from_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert kaggle.parse("kaggle") is None
