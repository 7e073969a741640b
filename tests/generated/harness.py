"""One made-up family through porter: tables by its loader, headers to a plan, the plan through a runner."""

import shutil
import tempfile
from pathlib import Path

from families import make_case
from oracle import write_safetensors
from runners import RUNNERS, few_bytes

from porter.containers.base import Header, StoredTensor
from porter.containers.checkpoint import Checkpoint
from porter.dtypes import DTYPES
from porter.planning.build import build_plan
from porter.planning.plan_options import PlanOptions
from porter.recognition.identify import Identity
from porter.recognition.stored_names import NameMatcher
from porter.tables import Family, bind
from porter.tables.load import load_canonical, load_dialect

# Rows behind a weight are a block of the layout; before that they were said beside it.
BLOCK_PADDING = hasattr(bind, "Filler")


def load_family(case, root):
    folder = root / "made"
    folder.mkdir(parents=True)
    (folder / "canonical.toml").write_text(case.canonical)
    canonical = load_canonical(folder / "canonical.toml", root)
    found = {}
    for name, text in case.dialects.items():
        (folder / f"{name}.toml").write_text(text)
        found[name] = load_dialect(folder / f"{name}.toml", root, canonical)
    return Family(canonical, found)


def write_checkpoint(case, root):
    root.mkdir()
    headers = []
    names = sorted(case.source)
    for number in range(case.shards):
        part = names[number :: case.shards]
        if not part:
            continue
        file = f"part{number}.safetensors"
        given = {name: (case.dtype, case.source[name].shape, case.source[name].tobytes()) for name in part}
        offsets = write_safetensors(root / file, given)
        tensors = tuple(
            StoredTensor(name, DTYPES[case.dtype], tuple(case.source[name].shape), file, offsets[name])
            for name in part
        )
        headers.append(Header("safetensors", file, (root / file).stat().st_size, tensors))
    return Checkpoint(root, "made", "safetensors", tuple(headers), {})


def make_plan(case, root):
    family = load_family(case, root / "tables")
    checkpoint = write_checkpoint(case, root / "source")
    dialect = family.dialect("one")
    matcher = NameMatcher(dialect)
    identity = Identity(
        family=family,
        dialect=dialect,
        hyperparameters=dict(case.sizes),
        raw={},
        names={name: matcher.spelled(name) for name in checkpoint.tensors if matcher.spelled(name)},
        unknown_fields=(),
    )
    options = PlanOptions(weights_only=True, max_shard_size=case.max_shard_size)
    return build_plan(checkpoint, identity, family.dialect("two"), options)


def differences(case, made):
    """What of the output is not what the oracle says; empty where all is right."""
    found = [f"{name} is not made" for name in sorted(set(case.expected) - set(made))]
    found += [f"{name} is made and should not be" for name in sorted(set(made) - set(case.expected))]
    for name in sorted(set(made) & set(case.expected)):
        dtype, shape, content = made[name]
        right = case.expected[name]
        if (dtype, shape) != (case.dtype, right.shape):
            found.append(f"{name} is {dtype} {shape}, not {case.dtype} {right.shape}")
        elif content != right.tobytes():
            found.append(f"{name} has wrong values")
    return found


# In memory, where the system has such a place: a test writes thousands of small files.
SCRATCH = "/dev/shm" if Path("/dev/shm").is_dir() else None


def trial(seed, runners=tuple(RUNNERS), avoid=frozenset()):
    """The case, and what went wrong, by runner; empty where nothing did."""
    case = make_case(seed, block_padding=BLOCK_PADDING, avoid=avoid)
    root = Path(tempfile.mkdtemp(prefix="porter-made-", dir=SCRATCH))
    wrong = {}
    try:
        if not case.source or not case.expected:
            return case, wrong
        plan = make_plan(case, root)
        for name in runners:
            with few_bytes(seed):
                try:
                    found = differences(case, RUNNERS[name](plan, root / "source", root))
                except Exception as error:
                    found = [f"{type(error).__name__}: {error}"]
            if found:
                wrong[name] = found
    except Exception as error:
        wrong["plan"] = [f"{type(error).__name__}: {error}"]
    finally:
        shutil.rmtree(root)
    return case, wrong
