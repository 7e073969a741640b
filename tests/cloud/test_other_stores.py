"""Reading from Google's and Azure's stores by obstore's own clients of them, on the loopback.

Google's client speaks the XML form of its API, which is that of S3: moto answers it. For Azure there is a
server that answers as Microsoft's emulator does, with which this has been tried too.
"""

import hashlib
import importlib.util
import json
import sys
from pathlib import Path

import pytest

import porter
from porter.errors import ChangedError, PorterError
from porter.execution.watch import Watch

TESTS = Path(__file__).parents[1]


def _load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


checkpoint = _load(TESTS / "cloud" / "models.py").checkpoint
azure_server = _load(TESTS / "sources" / "azure_server.py")


@pytest.fixture
def source(tmp_path):
    return checkpoint(tmp_path / "model")


class Google:
    """`put` stores an object; `url` is the address of the bucket."""

    def __init__(self, bucket, tmp_path, monkeypatch):
        key = {"gcs_base_url": bucket.server.endpoint, "disable_oauth": True}
        key |= dict.fromkeys(("client_email", "private_key", "private_key_id"), "")
        (tmp_path / "key.json").write_text(json.dumps(key))
        monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", str(tmp_path / "key.json"))
        # Google's client writes %2D for the hyphen of a bucket's name, which moto does not read.
        self._bucket, self._name = bucket, bucket.name.replace("-", "")
        bucket.client.create_bucket(Bucket=self._name)
        self.url = f"gs://{self._name}"

    def put(self, name, content):
        # Nobody asks, here.
        self._bucket.client.put_object(Bucket=self._name, Key=name, Body=content, ACL="public-read")


class Azure:
    def __init__(self, server, monkeypatch):
        monkeypatch.setenv("AZURE_STORAGE_USE_EMULATOR", "true")
        monkeypatch.setenv("AZURITE_BLOB_STORAGE_URL", server.endpoint)
        self.server, self.url = server, f"az://{azure_server.ACCOUNT}/{azure_server.CONTAINER}"

    def put(self, name, content):
        self.server.blobs[name] = content


@pytest.fixture(params=["gs", "az"])
def store(request, bucket, tmp_path, monkeypatch):
    if request.param == "gs":
        yield Google(bucket, tmp_path, monkeypatch)
        return
    server = azure_server.AzureServer()
    yield Azure(server, monkeypatch)
    server.close()


def fill(store, folder, to):
    for path in sorted(folder.iterdir()):
        store.put(f"{to}/{path.name}", path.read_bytes())
    return f"{store.url}/{to}"


def digests(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.glob("*.safetensors")}


def test_it_is_read_as_a_directory_is(store, source, tmp_path):
    there = fill(store, source, "deep/model")
    # What begins with the same words is another folder.
    fill(store, checkpoint(tmp_path / "other", seed=4), "deep/model-2")
    store.put("deep/model/.hidden", b"x")
    assert porter.inspect(there).tensors == porter.inspect(source).tensors
    porter.convert(source, tmp_path / "near", to="litgpt")
    porter.convert(there, tmp_path / "out", to="litgpt")
    assert digests(tmp_path / "out") == digests(tmp_path / "near")
    porter.convert(f"{there}-2", tmp_path / "out-2", to="litgpt")
    assert digests(tmp_path / "out-2") != digests(tmp_path / "near"), "the control: that is another model"


def test_what_is_replaced_on_the_way_is_noticed(store, source, tmp_path):
    there = fill(store, source, "model")
    other = checkpoint(tmp_path / "other", seed=1)
    with pytest.raises(ChangedError, match="not the file that was planned for"):
        porter.convert(
            there, tmp_path / "out", to="litgpt", watch=Watch(moving=lambda name: fill(store, other, "model"))
        )
    assert not (tmp_path / "out").exists()


def test_nothing_and_no_bucket(store):
    with pytest.raises(PorterError, match="there is nothing at"):
        porter.inspect(f"{store.url}/model")
    with pytest.raises(PorterError, match=r"there is no (bucket|container)") as missing:
        porter.inspect(f"{store.url}nobody/model")
    assert missing.value.exit_code == 1


def test_azures_listing_comes_in_pages_and_files_by_ranges(monkeypatch, source, tmp_path):
    server = azure_server.AzureServer()
    there = fill(Azure(server, monkeypatch), source, "model")
    porter.convert(there, tmp_path / "out", to="litgpt")
    server.close()
    assert len({marker for verb, name, marker in server.log if verb == "GET" and not name}) > 1
    reads = [asked for verb, name, asked in server.log if verb == "GET" and name.endswith(".safetensors")]
    assert reads and all(asked.startswith("bytes=") for asked in reads)
