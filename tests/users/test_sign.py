"""`porter sign` and `porter check --public-key`: whose an output is, by signatures of model-signing.

What is signed here its own command verifies, and what it signs is verified here. That a receipt alone is no
proof of origin is shown: whoever can write seals another.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization as pem
from cryptography.hazmat.primitives.asymmetric import ec, rsa

import porter
from porter.errors import MalformedError, PorterError, UnsupportedError, UsageError
from porter.execution.receipts import seal

pytestmark = pytest.mark.peer

# model-signing imports it, and does not ask for it: an environment may have the one without the other.
pytest.importorskip("OpenSSL", reason="the extra sign is not installed")

RECEIPT, WEIGHTS = "porter-receipt.json", "lit_model.safetensors"


def write_keys(folder: Path, key: Any, password: bytes | None = None) -> tuple[Path, Path]:
    folder.mkdir(exist_ok=True)
    lock = pem.BestAvailableEncryption(password) if password else pem.NoEncryption()
    private, public = folder / "key.pem", folder / "key.pub"
    private.write_bytes(key.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, lock))
    public.write_bytes(key.public_key().public_bytes(pem.Encoding.PEM, pem.PublicFormat.SubjectPublicKeyInfo))
    return private, public


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_keys(tmp_path_factory.mktemp("keys"), ec.generate_private_key(ec.SECP256R1()))


@pytest.fixture(scope="module")
def signed(tiny_gemma: Path, keys: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("signed") / "out"
    porter.convert(tiny_gemma, out, to="litgpt")
    made = porter.sign(out, private_key=keys[0])
    there = [path for path in out.iterdir() if path != made.signature]
    assert (made.signature, made.files) == (out / "model.sig", len(there))
    return out


@pytest.fixture
def out(signed: Path, tmp_path: Path) -> Path:
    """A signed directory under another name, that may be damaged."""
    return Path(shutil.copytree(signed, tmp_path / "elsewhere"))


def run(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, words)], capture_output=True, text=True, timeout=120, check=False
    )


def test_the_commands_and_the_packages_own(tiny_gemma: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    out, (private, public) = tmp_path / "out", keys
    porter.convert(tiny_gemma, out, to="litgpt")
    done = run("-m", "porter", "sign", out, "--private-key", private)
    assert done.returncode == 0 and str(out / "model.sig") in done.stdout, done.stderr
    assert sorted(path.name for path in out.iterdir() if path.name.startswith(".")) == []
    done = run("-m", "porter", "check", out, "--public-key", public)
    assert done.returncode == 0 and "signature  holds" in done.stdout, done.stderr
    # A receipt is checked without a key, as before.
    assert run("-m", "porter", "check", out).returncode == 0
    theirs = ["verify", "key", out, "--signature", out / "model.sig", "--public_key", public]
    assert run("-m", "model_signing", *theirs).returncode == 0
    with (out / WEIGHTS).open("r+b") as stream:
        stream.seek(-1, 2)
        last = stream.read(1)
        stream.seek(-1, 2)
        stream.write(bytes([last[0] ^ 1]))
    assert run("-m", "porter", "check", out, "--public-key", public).returncode == 3
    assert run("-m", "model_signing", *theirs).returncode != 0


def test_what_the_package_signs_is_verified_here(out: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    from model_signing import signing

    (out / "model.sig").unlink()
    signing.Config().use_elliptic_key_signer(private_key=keys[0]).sign(out, tmp_path / "their.sig")
    found = porter.check(out, public_key=keys[1], signature=tmp_path / "their.sig")
    assert (found.signature, found.verdict, found.exit_code) == ("verified", "verified", 0)


def test_a_signature_names_no_place_of_this_machine(signed: Path, keys: tuple[Path, Path]) -> None:
    import base64

    held = json.loads((signed / "model.sig").read_text())
    stated = base64.b64decode(held["dsseEnvelope"]["payload"]).decode()
    assert WEIGHTS in stated and str(signed.parent) not in stated and str(keys[0].parent) not in stated


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def reseal(out: Path) -> None:
    """What whoever can write to the directory can do: other weights, and a receipt that fits them."""
    import hashlib

    flip(out / WEIGHTS, -1)
    content = json.loads((out / RECEIPT).read_text())
    digest = hashlib.sha256((out / WEIGHTS).read_bytes()).hexdigest()
    content["files"][WEIGHTS]["sha256"] = f"sha256:{digest}"
    content["files"][WEIGHTS].pop("crc32", None)
    (out / RECEIPT).write_bytes(seal(content))


def test_another_receipt_is_no_other_signature(out: Path, keys: tuple[Path, Path]) -> None:
    assert porter.check(out, public_key=keys[1]).exit_code == 0
    reseal(out)
    # The negative control: the receipt alone says nothing.
    assert porter.check(out).exit_code == 0
    found = porter.check(out, public_key=keys[1])
    assert (found.signature, found.verdict, found.exit_code) == ("differs", "differs", 3)
    assert found.signature_detail is not None and WEIGHTS in found.signature_detail


def with_another_key(out: Path, public: Path) -> Path:
    return write_keys(out.parent / "others", ec.generate_private_key(ec.SECP384R1()))[1]


def signed_with_another_key(out: Path, public: Path) -> Path:
    private, _ = write_keys(out.parent / "others", ec.generate_private_key(ec.SECP256R1()))
    porter.sign(out, private_key=private)
    return public


def with_another_payload(out: Path, public: Path) -> Path:
    import base64

    held = json.loads((out / "model.sig").read_text())
    stated = base64.b64decode(held["dsseEnvelope"]["payload"]).decode()
    digest = json.loads(stated)["subject"][0]["digest"]["sha256"]
    other = stated.replace(digest, digest[::-1])
    held["dsseEnvelope"]["payload"] = base64.b64encode(other.encode()).decode()
    (out / "model.sig").write_text(json.dumps(held))
    return public


DIFFERENT: dict[str, Callable[[Path, Path], Path]] = {
    "another key": with_another_key,
    "signed with another key": signed_with_another_key,
    "a payload that was not signed": with_another_payload,
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_a_signature_that_does_not_hold(out: Path, keys: tuple[Path, Path], name: str) -> None:
    public = DIFFERENT[name](out, keys[1])
    found = porter.check(out, public_key=public)
    assert (found.signature, found.exit_code) == ("differs", 3)


def test_what_is_no_signature_and_what_is_no_key(
    out: Path, keys: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    public = keys[1]
    place = out / "model.sig"
    for content in (b"", b"[]", b"{}", b'{"verificationMaterial": {}}', b"[" * 100_000, bytes(100)):
        place.write_bytes(content)
        with pytest.raises(MalformedError):
            porter.check(out, public_key=public)
    place.unlink()
    with pytest.raises(UnsupportedError, match="no signature at"):
        porter.check(out, public_key=public)
    curve = write_keys(tmp_path / "rsa", rsa.generate_private_key(65537, 2048))
    for wrong in (curve[0], public, out / WEIGHTS, tmp_path / "nowhere"):
        with pytest.raises(PorterError):
            porter.sign(out, private_key=wrong)
    locked, _ = write_keys(tmp_path / "locked", ec.generate_private_key(ec.SECP256R1()), b"a word")
    for said, code in ((None, 2), ("another", 2), ("a word", 0)):
        if said is not None:
            monkeypatch.setenv("PORTER_KEY_PASSWORD", said)
        if code:
            with pytest.raises(UsageError, match="PORTER_KEY_PASSWORD"):
                porter.sign(out, private_key=locked)
        else:
            assert porter.sign(out, private_key=locked).verdict == "verified"


def test_what_is_damaged_is_not_signed(out: Path, keys: tuple[Path, Path]) -> None:
    (out / "model.sig").unlink()
    flip(out / WEIGHTS, 400)
    with pytest.raises(PorterError, match=WEIGHTS) as error:
        porter.sign(out, private_key=keys[0])
    assert error.value.exit_code == 3 and not (out / "model.sig").exists()


def test_without_the_package_the_error_names_the_extra(
    out: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "model_signing"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "model_signing", None)
    for act in (
        lambda: porter.sign(out, private_key=keys[0]),
        lambda: porter.check(out, public_key=keys[1]),
    ):
        with pytest.raises(UnsupportedError, match="model-signing") as error:
            act()
        assert "the extra sign" in str(error.value)


def test_options_that_contradict_each_other(out: Path, keys: tuple[Path, Path]) -> None:
    for options in (
        {"signature": out / "model.sig"},
        {"public_key": keys[1], "quick": True},
        {"public_key": keys[1], "record": True},
    ):
        with pytest.raises(UsageError):
            porter.check(out, **options)  # type: ignore[arg-type]
