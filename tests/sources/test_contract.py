"""What every source promises, by the same tests over each of them."""

import json
import pickle
import threading

import pytest

from porter.errors import ChangedError, MalformedError, PorterError
from porter.sources.base import NearFile
from porter.sources.buckets.bucket_address import parse_address
from porter.sources.buckets.bucket_listing import open_bucket
from porter.sources.hub.hub_source import HubSource
from porter.sources.hub.repository import list_files
from porter.sources.in_memory import MemorySource
from porter.sources.local_files import LocalSource
from porter.sources.names import HubReference
from porter.sources.overlay import OverlaySource

# Of different lengths; the first is large enough for the loopback Hub to keep it apart.
CONTENTS = {"one.safetensors": bytes(range(256)) * 800, "folder/two.bin": b"two" * 999, "config.json": b"{}"}


def written(root):
    for name, content in CONTENTS.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def local(tmp_path, request):
    return LocalSource(written(tmp_path / "local"), "label")


def memory(tmp_path, request):
    return MemorySource(dict(CONTENTS), "label")


def overlay(tmp_path, request):
    """One of the files lies elsewhere."""
    own = {name: content for name, content in CONTENTS.items() if name != "folder/two.bin"}
    (tmp_path / "elsewhere").write_bytes(CONTENTS["folder/two.bin"])
    return OverlaySource(MemorySource(own, "label"), {"folder/two.bin": tmp_path / "elsewhere"})


def hub(tmp_path, request):
    server = request.getfixturevalue("hub_here")
    server.add("org/name", written(tmp_path / "served"))
    ref = HubReference("org/name")
    return HubSource(ref, list_files(ref), tmp_path / "small")


def bucket_folder(tmp_path, request):
    bucket = request.getfixturevalue("bucket")
    return open_bucket(parse_address(bucket.fill(written(tmp_path / "stored"), "folder/label")))


def plain_https(tmp_path, request):
    """The same objects without a listing; the names that porter does not know come through an index."""
    bucket = request.getfixturevalue("bucket")
    bucket.fill(written(tmp_path / "stored"), "label")
    index = {"weight_map": {name: name for name in CONTENTS}}
    key = "label/model.safetensors.index.json"
    bucket.client.put_object(Bucket=bucket.name, Key=key, Body=json.dumps(index).encode(), ACL="public-read")
    for name in CONTENTS:
        bucket.client.put_object_acl(Bucket=bucket.name, Key=f"label/{name}", ACL="public-read")
    return open_bucket(parse_address(f"{bucket.server.endpoint}/{bucket.name}/label"))


@pytest.fixture
def hub_here(monkeypatch):
    """The loopback Hub for a client in this process, which reads its address when it is imported."""
    from huggingface_hub import constants

    from tests.sources import hub_server

    server = hub_server.HubServer()
    monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
    template = server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", server.endpoint)
    yield server
    server.close()


KINDS = {
    "local": local,
    "memory": memory,
    "overlay": overlay,
    "hub": hub,
    "bucket": bucket_folder,
    "https": plain_https,
}


@pytest.fixture(params=KINDS)
def source(request, tmp_path):
    return KINDS[request.param](tmp_path, request)


def test_it_says_what_it_holds(source):
    files = source.files()
    assert {name: files[name].size for name in CONTENTS} == {n: len(c) for n, c in CONTENTS.items()}
    assert all(files[name].version for name in CONTENTS)
    assert source.label in ("label", "org/name")
    assert isinstance(source.version, str) and isinstance(source.near, bool)


@pytest.mark.parametrize("name", CONTENTS)
def test_ranges_fill_views_one_after_the_other(source, name):
    content = CONTENTS[name]
    file = source.open(name)
    assert (file.name, file.size) == (name, len(content))
    for start, lengths in ((0, [len(content)]), (1, [1]), (len(content) // 2, [0, 1, 0])):
        views = [memoryview(bytearray(length)) for length in lengths]
        file.read(views, start)
        assert b"".join(views) == content[start : start + sum(lengths)]
    file.close()


def test_any_number_of_threads_read_at_once(source):
    name = "one.safetensors"
    file, wrong = source.open(name), []

    def read(start):
        view = memoryview(bytearray(1000))
        file.read([view], start)
        if view != CONTENTS[name][start : start + 1000]:
            wrong.append(start)

    threads = [threading.Thread(target=read, args=(start,)) for start in range(0, 12_000, 1000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    file.close()
    assert wrong == []


def test_past_the_end_is_an_error_and_nothing_is_made_up(source):
    file = source.open("folder/two.bin")
    with pytest.raises(PorterError):
        file.read([memoryview(bytearray(10))], file.size - 5)
    file.close()


def test_a_file_that_is_not_there_is_an_error(source):
    with pytest.raises(MalformedError):
        source.open("nothing.bin")


def test_closing_twice_is_no_error(source):
    file = source.open("config.json")
    file.close()
    file.close()


def test_only_near_files_have_a_descriptor(source):
    file = source.open("one.safetensors")
    assert not isinstance(file, NearFile) or source.near
    file.close()


def test_what_did_not_change_is_not_said_to_have(source):
    for name in CONTENTS:
        source.open(name).close()
    source.check(CONTENTS)


def test_a_replaced_object_is_noticed(bucket, tmp_path, request):
    source = bucket_folder(tmp_path, request)
    file = source.open("config.json")
    bucket.client.put_object(Bucket=bucket.name, Key="folder/label/config.json", Body=b"[]")
    with pytest.raises(ChangedError, match=r"config\.json"):
        file.read([memoryview(bytearray(2))], 0)
    with pytest.raises(ChangedError, match=r"config\.json"):
        source.check(["config.json"])
    bucket.client.delete_object(Bucket=bucket.name, Key="folder/label/folder/two.bin")
    with pytest.raises(ChangedError, match="nothing"):
        source.check(CONTENTS)


def test_a_bucket_goes_to_another_process_without_who_asks(bucket, tmp_path, request):
    source = bucket_folder(tmp_path, request)
    source.open("config.json").read([memoryview(bytearray(1))], 0)
    sent = pickle.dumps(source)
    assert b"secret" not in sent and b"somebody" not in sent
    view = memoryview(bytearray(2))
    pickle.loads(sent).open("config.json").read([view], 0)
    assert bytes(view) == CONTENTS["config.json"]


def test_a_repository_goes_to_another_process_without_its_token(hub_here, tmp_path):
    hub_here.add("org/name", written(tmp_path / "served"))
    ref = HubReference("org/name")
    source = HubSource(ref, list_files(ref), tmp_path / "small", "hf_thesecret")
    sent = pickle.dumps(source)
    assert b"hf_thesecret" not in sent
    view = memoryview(bytearray(300))
    pickle.loads(sent).open("one.safetensors").read([view], 200)
    assert bytes(view) == CONTENTS["one.safetensors"][200:500]


def test_a_replaced_content_is_noticed():
    """A negative control for those whose content can change under them."""
    contents = dict(CONTENTS)
    source = MemorySource(contents)
    contents["config.json"] = b"[]"
    with pytest.raises(ChangedError, match=r"config\.json"):
        source.open("config.json")
    with pytest.raises(ChangedError, match=r"config\.json"):
        source.check(["config.json"])
