"""A few of the made-up plans over real HTTP, from a Hub on the loopback."""

import json
import pickle
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import families
import harness
import runners

SEEDS = range(10)

PROGRAM = """
import pickle
from pathlib import Path
from porter.execution import streaming
from porter.execution.publish import publish_plan
from porter.sources.hub.hub_source import HubSource
from porter.sources.hub.listing import RepoFile, RepoListing
from porter.sources.names import HubReference
streaming.CHUNK = 256
for seed, commit, plan, files, source, out in pickle.loads(Path(sys.argv[1]).read_bytes()):
    repo = f"made/{seed}"
    listing = RepoListing(repo, commit, tuple(RepoFile(*file) for file in files))
    # None of the files lies beside: every byte comes from afar.
    publish_plan(plan, HubSource(HubReference(repo), listing, Path(out).parent / 'small'), Path(out))
emit("done")
"""


def test_from_the_hub(hub, tmp_path):
    cases, asked = {}, []
    for seed in SEEDS:
        root = tmp_path / str(seed)
        root.mkdir()
        case = families.make_case(seed, block_padding=harness.BLOCK_PADDING, avoid=families.AVOIDABLE)
        plan = harness.make_plan(case, root)
        commit = hub.server.add(f"made/{seed}", root / "source")
        contents = hub.server.repos[f"made/{seed}"].commits[commit]
        files = [(name, len(content.data), content.sha256) for name, content in contents.items()]
        asked.append((seed, commit, plan, files, str(root / "source"), str(root / "out")))
        cases[seed] = case, root / "out"
    (tmp_path / "asked").write_bytes(pickle.dumps(asked))
    assert hub.python(PROGRAM, str(tmp_path / "asked")) == "done"
    assert {request.server for request in hub.server.log} >= {"storage"}
    for seed, (case, out) in cases.items():
        assert harness.differences(case, runners.made_in(out)) == [], json.dumps(
            [seed, *sorted(case.features)]
        )
