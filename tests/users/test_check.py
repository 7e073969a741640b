"""`porter check`: whatever happens to a converted directory is noticed, and what cannot be known is said.

Damage is done to the files themselves; what must be found is known because it was done here.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import porter
from porter.errors import PorterError
from porter.execution.run_options import RunOptions

pytestmark = pytest.mark.peer

RECEIPT = "porter-receipt.json"
FLIPS = {"lit_model.safetensors": 200, "model_config.yaml": 80, "tokenizer.model": 80, RECEIPT: 140}


@pytest.fixture(scope="module")
def made(tiny_gemma: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "out"
    porter.convert(tiny_gemma, out, to="litgpt", run_options=RunOptions(digest="always", reflink="never"))
    return out


@pytest.fixture
def out(made: Path, tmp_path: Path) -> Path:
    """A converted directory that may be damaged."""
    return Path(shutil.copytree(made, tmp_path / "out"))


@pytest.fixture
def unhashed(tiny_gemma: Path, tmp_path: Path) -> Path:
    """One whose weights were not hashed, as it is where blocks were shared."""
    out = tmp_path / "unhashed"
    porter.convert(tiny_gemma, out, to="litgpt", run_options=RunOptions(digest="never"))
    return out


Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def command(hub: Any, here: Path) -> Command:
    """`porter check …`, where data and an exit code may come together."""

    def run(*arguments: str | Path, code: int) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "porter", "check", *map(str, arguments)],
            cwd=here,
            env=hub.env,
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


def flip(path: Path, place: int, bit: int) -> None:
    with path.open("r+b") as stream:
        stream.seek(place)
        old = stream.read(1)[0]
        stream.seek(place)
        stream.write(bytes([old ^ 1 << bit]))


def states(found: porter.OutputCheck) -> dict[str, str]:
    return {file.name: file.state for file in found.files if file.state != "verified"}


def test_every_one_of_500_bit_flips_is_found(out: Path) -> None:
    chance = random.Random(12)
    assert porter.check(out).verdict == "verified", (
        "negative control: nothing is found where nothing was done"
    )
    missed = []
    for name, number in FLIPS.items():
        size = (out / name).stat().st_size
        for _ in range(number):
            place, bit = chance.randrange(size), chance.randrange(8)
            flip(out / name, place, bit)
            try:
                found = porter.check(out)
                seen = found.exit_code == 3 and states(found) == {name: "changed"}
            except PorterError as error:
                seen = name == RECEIPT and error.exit_code == 6
            if not seen:
                missed.append((name, place, bit))
            flip(out / name, place, bit)
    assert missed == []
    assert sum(FLIPS.values()) == 500
    assert porter.check(out).verdict == "verified"


def test_what_is_missing_added_or_changed_is_named(out: Path, command: Command) -> None:
    assert command(out, code=0).stdout.startswith("verified")
    (out / "tokenizer.model").unlink()
    (out / "pytorch_model.bin").write_bytes(b"1")
    (out / "sub").mkdir()
    (out / "sub" / "x").write_bytes(b"")
    with (out / "model_config.yaml").open("a") as stream:
        stream.write(" ")
    flip(out / "lit_model.safetensors", 5000, 3)
    done = command(out, code=3)
    told = [line.split(":")[0].split() for line in done.stdout.splitlines()[:-1]]
    assert sorted(told) == [
        ["added", "pytorch_model.bin"],
        ["added", "sub/x"],
        ["changed", "lit_model.safetensors"],
        ["changed", "model_config.yaml"],
        ["missing", "tokenizer.model"],
    ]
    assert done.stdout.splitlines()[-1].startswith("differs    5 of ")
    found = json.loads(command(out, "--json", code=3).stdout)
    assert (found["schema"], found["verdict"]) == (1, "differs")
    # Without reading contents, a flipped bit goes unseen, and so it is not claimed.
    quick = porter.check(out, quick=True)
    assert states(quick)["lit_model.safetensors"] == "unverified"
    assert quick.exit_code == 3


def test_what_has_no_digest_is_not_called_verified_until_it_is_recorded(
    unhashed: Path, command: Command, tree: Any
) -> None:
    before, old = tree(unhashed), json.loads((unhashed / RECEIPT).read_text())
    done = command(unhashed, code=1)
    assert done.stdout.startswith("unverified lit_model.safetensors")
    assert "--record" in done.stderr
    assert command(unhashed, "--quick", code=0).stdout.startswith("sizes")
    assert tree(unhashed) == before, "looking changes nothing"
    done = command(unhashed, "--record", code=0)
    assert "recorded the digest of lit_model.safetensors" in done.stderr
    after = tree(unhashed)
    assert {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)} == {RECEIPT}
    new = json.loads((unhashed / RECEIPT).read_text())
    assert new["files"]["lit_model.safetensors"]["sha256"] == f"sha256:{after['lit_model.safetensors'][0]}"
    assert new["recorded_later"] == ["lit_model.safetensors"]
    assert {key for key in old.keys() | new.keys() if old.get(key) != new.get(key)} == {
        "files",
        "recorded_later",
        "seal",
    }
    flip(unhashed / "lit_model.safetensors", 7000, 0)
    assert states(porter.check(unhashed)) == {"lit_model.safetensors": "changed"}
    receipt = (unhashed / RECEIPT).read_bytes()
    assert porter.check(unhashed, record=True).exit_code == 3
    assert (unhashed / RECEIPT).read_bytes() == receipt, "nothing is recorded of what differs"
    assert not list(unhashed.glob(".*")) and not list(unhashed.parent.glob(".*porter*"))


def test_headers_are_held_against_the_plan_where_there_is_no_digest(unhashed: Path) -> None:
    path = unhashed / "lit_model.safetensors"
    data = path.read_bytes()
    assert data.count(b"transformer.ln_f.weight") == 1
    path.write_bytes(data.replace(b"transformer.ln_f.weight", b"transformer.ln_g.weight"))
    found = porter.check(unhashed)
    assert found.exit_code == 3 and "other tensors" in str(found.tensors)
    path.write_bytes(b"\xff" * 8 + data[8:])
    assert "cannot be read" in str(porter.check(unhashed).tensors)
    path.write_bytes(data)
    assert porter.check(unhashed).tensors is None


def test_receipts_of_before_are_read_and_completed(out: Path) -> None:
    content = json.loads((out / RECEIPT).read_text())
    for key in ("seal", "tensors"):
        del content[key]
    content["schema"] = 1
    content["files"] = {
        name: {"sha256": said["sha256"], "more": "12345678"} for name, said in content["files"].items()
    }
    (out / RECEIPT).write_text(json.dumps(content))
    found = porter.check(out)
    assert (found.verdict, len(found.lacks)) == ("verified", 3)
    assert porter.check(out, record=True).recorded == found.lacks
    again = porter.check(out)
    assert (again.verdict, again.lacks, again.plan) == ("verified", (), found.plan)
    content = json.loads((out / RECEIPT).read_text())
    assert content["recorded_later"] == []
    assert {said["more"] for said in content["files"].values()} == {"12345678"}, "the rest stays"


def damaged(text: str) -> dict[str, tuple[str | None, int]]:
    """Receipts that say what none says, and the exit code of each."""
    content = json.loads(text)
    old = {key: value for key, value in content.items() if key not in ("seal", "tensors")} | {"schema": 1}

    def with_(**changes: Any) -> str:
        return json.dumps({**old, **changes})

    return {
        "none": (None, 5),
        "empty": ("", 6),
        "cut": (text[: len(text) // 2], 6),
        "a list": ("[]", 6),
        "deep": ("[" * 100_000, 6),
        "a key twice": (with_()[:-1] + ', "plan": "sha256:' + "0" * 64 + '"}', 6),
        "spaces": (text.replace(": ", ":  ", 1), 6),
        "without its seal": (json.dumps({**content, "seal": None}), 6),
        "newer": (with_(schema=1.0), 6),
        "outside": (with_(files={"../x": {"sha256": None}}), 6),
        "absolute": (with_(files={"/etc/passwd": {"sha256": None}}), 6),
        "no digest": (with_(files={"x": {"sha256": "sha256:12"}}), 6),
        "negative": (with_(files={"x": {"sha256": None, "size": -1}}), 6),
        "no plan": (with_(plan=None), 6),
        "no files": (with_(files=None), 6),
    }


def test_receipts_that_are_none(out: Path) -> None:
    text = (out / RECEIPT).read_text()
    for kind, (bad, code) in damaged(text).items():
        if bad is None:
            (out / RECEIPT).unlink()
        else:
            (out / RECEIPT).write_text(bad)
        with pytest.raises(PorterError) as caught:
            porter.check(out)
        assert caught.value.exit_code == code, kind
    (out / RECEIPT).write_text(text)
    assert porter.check(out).verdict == "verified"
    with pytest.raises(PorterError) as caught:
        porter.check(out / "nowhere")
    assert caught.value.exit_code == 2
    with pytest.raises(PorterError) as caught:
        porter.check(out, record=True, quick=True)
    assert caught.value.exit_code == 2


def test_a_newer_porters_receipt_is_left_to_it(out: Path) -> None:
    from porter.execution.receipts import _BLANK, hashlib

    content = {**json.loads((out / RECEIPT).read_text()), "schema": 3, "seal": f"sha256:{_BLANK}"}
    text = json.dumps(content)
    (out / RECEIPT).write_text(text.replace(_BLANK, hashlib.sha256(text.encode()).hexdigest()))
    with pytest.raises(PorterError, match="newer porter") as caught:
        porter.check(out)
    assert caught.value.exit_code == 5


def test_links_must_not_lead_out_and_the_hubs_are_followed(out: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (out / "tokenizer.model").rename(elsewhere)
    (out / "tokenizer.model").symlink_to(elsewhere)
    assert states(porter.check(out)) == {"tokenizer.model": "changed"}
    elsewhere.replace(out / "tokenizer.model")
    repo = tmp_path / "models--some--model"
    snapshot, blobs = repo / "snapshots" / ("0" * 40), repo / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, path in enumerate(sorted(out.iterdir())):
        path.rename(blobs / str(number))
        (snapshot / path.name).symlink_to(Path("../../blobs", str(number)))
    assert porter.check(snapshot).verdict == "verified"
    flip(blobs / "0", 3, 3)
    assert porter.check(snapshot).verdict == "differs"


def test_a_killed_record_leaves_nothing_in_the_way(unhashed: Path) -> None:
    (unhashed / f".{RECEIPT}.new").write_text("half a rec")
    assert porter.check(unhashed, record=True).verdict == "verified"
    assert porter.check(unhashed).verdict == "verified"
    assert not (unhashed / f".{RECEIPT}.new").exists()


@pytest.mark.parametrize(
    "to",
    [
        {"to": "hf"},
        {"to": "litgpt", "container": "pth"},
        {"to": "litgpt-legacy"},
        {"to": "keras"},
        {"to": "gemma_pytorch"},
        {"to": "flax"},
        {"to": "hf", "max_shard_size": 100_000, "dtype": "bfloat16"},
    ],
    ids=lambda to: "-".join(map(str, to.values())),
)
def test_every_kind_of_output_is_read_back(tiny_gemma: Path, tmp_path: Path, to: dict[str, Any]) -> None:
    run = RunOptions(digest="always", reflink="never")
    porter.convert(tiny_gemma, tmp_path / "out", run_options=run, **to)
    found = porter.check(tmp_path / "out")
    assert (found.verdict, found.tensors, found.lacks) == ("verified", None, ())
