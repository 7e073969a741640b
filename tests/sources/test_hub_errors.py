"""What the Hub refuses, and what is said of it. No traceback, no token."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

FILES = {"config.json": b"{}", "model.safetensors": b"w" * 50_021}
TOKEN = "hf_averysecrettokenthatnobodymaysee"


def refused(result: Any) -> tuple[str, int, str]:
    assert "hf_" not in result["text"] and "signed-for" not in result["text"]
    assert "Traceback" not in result["text"]
    return result["error"], result["exit"], result["text"]


@pytest.mark.parametrize("dry_run", [False, True])
def test_gated_without_a_token(hub: Any, dry_run: bool) -> None:
    hub.server.add("google/gemma-2b", FILES, gated=True)
    error, code, text = refused(hub.download("gemma-2b", dry_run=dry_run))
    assert (error, code) == ("AccessError", 4)
    assert "https://huggingface.co/google/gemma-2b" in text and "hf auth login" in text
    assert hub.server.file_bytes == 0


def test_gated_with_a_token_whose_account_has_no_access(hub: Any) -> None:
    hub.server.add("google/gemma-2b", FILES, gated=True)
    hub.server.token(TOKEN)
    error, code, text = refused(hub.download("gemma-2b", env={"HF_TOKEN": TOKEN}))
    assert (error, code) == ("AccessError", 4)
    assert "accept the licence at https://huggingface.co/google/gemma-2b with that account" in text
    assert refused(hub.download("gemma-2b"))[2] != text


@pytest.mark.parametrize("way", ["environment", "argument"])
def test_gated_with_access(hub: Any, way: str) -> None:
    hub.server.add("google/gemma-2b", FILES, gated=True)
    hub.server.token(TOKEN, "google/gemma-2b")
    options = {"env": {"HF_TOKEN": TOKEN}} if way == "environment" else {"token": TOKEN}
    assert hub.download("gemma-2b", **options)["bytes_fetched"] == sum(map(len, FILES.values()))
    assert all(request.authorized == (request.server == "hub") for request in hub.server.log)


def test_what_is_cached_needs_no_access(hub: Any) -> None:
    hub.server.add("google/gemma-2b", FILES)
    hub.download("gemma-2b")
    hub.server.add("google/gemma-2b", FILES, gated=True)
    assert hub.download("gemma-2b")["bytes_to_fetch"] == 0


def test_an_invalid_token(hub: Any) -> None:
    hub.server.add("org/model", FILES)
    error, code, text = refused(hub.download("org/model", env={"HF_TOKEN": TOKEN}))
    assert (error, code) == ("AccessError", 4)
    assert "refuses the token" in text


def test_a_token_that_no_header_can_hold_is_not_shown(hub: Any) -> None:
    hub.server.add("org/model", FILES)
    result = hub.download("org/model", token=f"{TOKEN}\nx")
    assert refused(result)[1] in (1, 4)


@pytest.mark.parametrize(("token", "hint"), [(None, "hf auth login"), (TOKEN, "cannot see it")])
def test_an_unknown_repository(hub: Any, token: str | None, hint: str) -> None:
    hub.server.token(TOKEN)
    error, code, text = refused(hub.download("org/nothing", token=token))
    assert (error, code) == ("UsageError", 2)
    assert "org/nothing" in text and hint in text


def test_a_private_repository_opens_for_its_token(hub: Any) -> None:
    hub.server.add("org/secret", FILES, private=True)
    assert refused(hub.download("org/secret"))[1] == 2
    hub.server.token(TOKEN, "org/secret")
    assert "error" not in hub.download("org/secret", token=TOKEN)


def test_an_unknown_revision(hub: Any) -> None:
    hub.server.add("org/model", FILES)
    error, code, text = refused(hub.download("org/model@nowhere"))
    assert (error, code) == ("UsageError", 2)
    assert "'nowhere'" in text


def test_a_file_that_the_listing_names_and_the_hub_has_not(hub: Any) -> None:
    commit = hub.server.add("org/model", FILES)
    repo = hub.server.repos["org/model"]
    listed = hub.python(
        "from porter.sources.names import HubReference\n"
        "from porter.sources.hub.repository import list_files\n"
        "from porter.sources.hub.hub_fetch import Place, fetch\n"
        "from porter.sources.hub.listing import RepoFile\n"
        "ref = HubReference('org/model')\n"
        "place = Place(list_files(ref))\n"
        "try:\n"
        "    fetch(place, RepoFile('gone.json', 3), ref)\n"
        "except PorterError as error:\n"
        "    emit({'error': type(error).__name__, 'exit': error.exit_code, 'text': str(error)})"
    )
    assert commit in repo.commits
    assert refused(listed)[:2] == ("UsageError", 2)


def test_nobody_answers(hub: Any) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    result = hub.download("org/model", env={"HF_ENDPOINT": f"http://127.0.0.1:{port}"})
    error, code, text = refused(result)
    assert (error, code) == ("PorterError", 1)
    assert "cannot reach the Hub" in text and "offline=True" in text


def test_the_hub_is_unwell(hub: Any) -> None:
    hub.server.add("org/model", FILES)
    hub.server.fault("api", "500")
    error, code, text = refused(hub.download("org/model"))
    assert (error, code) == ("PorterError", 1)
    assert "500" in text


def test_the_storage_is_unwell(hub: Any) -> None:
    hub.server.add("org/model", FILES)
    hub.server.fault("model.safetensors", "500")
    error, code, text = refused(hub.download("org/model"))
    assert (error, code) == ("PorterError", 1)
    assert "500" in text


def test_a_connection_that_breaks_in_the_middle_costs_no_more_than_a_second_run(hub: Any) -> None:
    hub.server.add("org/model", FILES)
    hub.server.fault("model.safetensors", "disconnect", times=1)
    first = hub.download("org/model")
    # Some versions of the client resume by themselves.
    result = hub.download("org/model") if "error" in first else first
    if "error" in first:
        assert refused(first)[:2] == ("PorterError", 1)
    assert (Path(result["path"]) / "model.safetensors").read_bytes() == FILES["model.safetensors"]


def test_a_slow_storage_is_waited_for(hub: Any) -> None:
    hub.server.add("org/model", FILES)
    hub.server.fault("model.safetensors", "slow")
    assert "error" not in hub.download("org/model")


def test_a_full_disk_is_said_in_words(hub: Any) -> None:
    said = hub.python(
        "import errno\n"
        "from porter.sources.names import HubReference\n"
        "from porter.sources.hub.hub_errors import translated\n"
        "try:\n"
        "    with translated(HubReference('org/model')):\n"
        "        raise OSError(errno.ENOSPC, 'No space left on device')\n"
        "except PorterError as error:\n"
        "    emit([error.exit_code, str(error)])"
    )
    assert said[0] == 1 and "disk became full" in said[1]


def test_a_mistake_in_porter_itself_is_not_dressed_up(hub: Any) -> None:
    said = hub.python(
        "from porter.sources.names import HubReference\n"
        "from porter.sources.hub.hub_errors import translated\n"
        "try:\n"
        "    with translated(HubReference('org/model')):\n"
        "        raise KeyError('x')\n"
        "except KeyError:\n"
        "    emit('through')"
    )
    assert said == "through"


def test_the_storage_of_this_hub_does_refuse_a_token(hub: Any) -> None:
    """The negative control of every test above that says no token reaches the storage."""
    hub.server.add("org/model", FILES)
    status = hub.python(
        "import urllib.request, urllib.error\n"
        "asked = urllib.request.Request(sys.argv[1], headers={'Authorization': 'Bearer x'})\n"
        "try:\n"
        "    emit(urllib.request.urlopen(asked).status)\n"
        "except urllib.error.HTTPError as error:\n"
        "    emit(error.code)",
        f"{hub.server.storage}/x/y?signature=signed-for-one-reader",
    )
    assert status == 400
