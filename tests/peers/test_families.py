"""Every family of `families.py`, and one model of each structure that LitGPT knows by name.

transformers writes a tiny model; LitGPT loads what porter makes of it, strictly, and computes the same
logits; back again the bytes are the same. The control: two weights of one shape that change places change the
logits.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import porter
from porter.errors import UnsupportedError
from porter.models import GPT
from tests.peers import families
from tests.peers import named_models as named

# One of each structure: the first that has it.
STRUCTURES: dict[object, dict[str, Any]] = {}
for _entry in named.entries():
    STRUCTURES.setdefault(named.structure(_entry), _entry)


class Ported:
    """A model of a family, where transformers, LitGPT and again transformers have it, with logits."""

    def __init__(self, root: Path, family: str, variant: str) -> None:
        self.family = family
        self.hf, self.litgpt, self.back = (root / name for name in ("hf", "litgpt", "back"))
        model = families.build(families.config_of(family, variant))
        model.save_pretrained(self.hf)
        with torch.inference_mode():
            self.logits: Tensor = model(named.prompt()).logits
        porter.convert(self.hf, self.litgpt, to="litgpt")
        porter.convert(self.litgpt, self.back, to="hf")

    def apart(self, logits: Tensor) -> float:
        return float((logits - self.logits).abs().max() / self.logits.abs().max())


@pytest.fixture(scope="module")
def ported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    made: dict[tuple[str, str], Ported] = {}

    def get(family: str, variant: str = "") -> Ported:
        if (family, variant) not in made:
            made[family, variant] = Ported(tmp_path_factory.mktemp(family), family, variant)
        return made[family, variant]

    yield get


@pytest.mark.peer
@pytest.mark.parametrize(("family", "variant"), families.CASES)
def test_it_goes_to_litgpt_and_back(ported, family, variant):
    model = ported(family, variant)
    with torch.inference_mode():
        assert model.apart(named.litgpt_module(model.litgpt)(named.prompt())) <= named.BOUND
        if beyond := families.BEYOND_PORTERS_MODEL.get(family):
            with pytest.raises(UnsupportedError, match=f"not implemented: .*{beyond}"):
                GPT.from_checkpoint(model.litgpt)
        else:
            assert model.apart(GPT.from_checkpoint(model.litgpt)(named.prompt())) <= named.BOUND
    there, again = (load_file(path / "model.safetensors") for path in (model.hf, model.back))
    assert there.keys() == again.keys()
    assert all(torch.equal(again[name], weight) for name, weight in there.items())
    for one, two in itertools.pairwise((model.hf, model.hf, model.litgpt, model.back)):
        verdict = porter.verify(one, two)
        assert verdict.outcome == "equal", (one.name, two.name, verdict.says)
    config = json.loads((model.back / "config.json").read_text())
    assert config["model_type"] == family
    from transformers import AutoModelForCausalLM

    loaded, loading = AutoModelForCausalLM.from_pretrained(model.back, output_loading_info=True)
    assert not any(loading.values()), loading
    with torch.inference_mode():
        assert torch.equal(loaded.eval()(named.prompt()).logits, model.logits)


@pytest.mark.peer
@pytest.mark.parametrize("family", families.FAMILIES)
def test_weights_of_one_shape_cannot_change_places(ported, family):
    """Otherwise a table could swap them, and the logits above would say nothing of it."""
    model = ported(family)
    module = named.litgpt_module(model.litgpt)
    state = module.state_dict()
    layer = {name: weight for name, weight in state.items() if name.startswith("transformer.h.1.")}
    pairs = [
        (one, two)
        for one, two in itertools.combinations(layer, 2)
        if layer[one].shape == layer[two].shape
        and not any(re.search(r"\.experts\.([2-9]|1\d)\.", name) for name in (one, two))
    ]
    parallel = module.config.parallel_residual
    for one, two in pairs:
        if parallel and {one[16:], two[16:]} == {"attn.proj.bias", "mlp.proj.bias"}:
            # Side by side, both are added to the same sum.
            continue
        kept = layer[one].clone()
        layer[one].copy_(layer[two])
        layer[two].copy_(kept)
        with torch.inference_mode():
            assert model.apart(module(named.prompt())) > 1e-4, f"{one} and {two} may change places"
        layer[two].copy_(layer[one])
        layer[one].copy_(kept)
    if "transformer.h.1.attn.qkv.weight" not in layer:
        return
    k, v = (
        module.config.n_head * module.config.head_size,
        module.config.n_query_groups * module.config.head_size,
    )
    rows = layer["transformer.h.1.attn.qkv.weight"]
    swapped = torch.cat((rows[:k], rows[k + v :], rows[k : k + v]))
    rows.copy_(swapped)
    with torch.inference_mode():
        assert model.apart(module(named.prompt())) > 1e-4, "k and v may change places"


@pytest.mark.peer
@pytest.mark.parametrize(("family", "variant"), families.CASES_WITHOUT_LITGPT)
def test_what_litgpt_has_no_model_for_stays_with_transformers(family, variant, tmp_path):
    from transformers import AutoModelForCausalLM

    model = families.build(families.config_of(family, variant))
    model.save_pretrained(tmp_path / "hf")
    with pytest.raises(UnsupportedError, match=f"no table for {family} in the dialect 'litgpt'") as caught:
        porter.convert(tmp_path / "hf", tmp_path / "litgpt", to="litgpt")
    assert families.WITHOUT_LITGPT[family][2] in caught.value.cause
    assert not (tmp_path / "litgpt").exists()
    porter.convert(tmp_path / "hf", tmp_path / "out", to="hf", max_shard_size="60KB")
    there = load_file(tmp_path / "hf" / "model.safetensors")
    shards = sorted((tmp_path / "out").glob("model-*.safetensors"))
    assert len(shards) > 1
    again = {name: weight for path in shards for name, weight in load_file(path).items()}
    assert there.keys() == again.keys()
    assert all(torch.equal(again[name], weight) for name, weight in there.items())
    for one, two in itertools.pairwise((tmp_path / "hf", tmp_path / "hf", tmp_path / "out")):
        verdict = porter.verify(one, two)
        assert verdict.outcome == "equal", (one.name, two.name, verdict.says)
    loaded, loading = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(loading.values()), loading
    with torch.inference_mode():
        wanted = model(named.prompt()).logits
        assert torch.equal(loaded.eval()(named.prompt()).logits, wanted)


@pytest.mark.peer
@pytest.mark.parametrize("entry", STRUCTURES.values(), ids=lambda entry: entry["name"])
def test_each_structure_that_litgpt_names_goes_both_ways(entry, tmp_path):
    _, apart = named.check_tiny(entry, tmp_path)
    assert apart <= named.BOUND


@pytest.mark.peer
def test_an_embedding_model_of_gemma_3_is_one_that_attends_both_ways(tmp_path):
    """EmbeddingGemma: Gemma 3's weights without a head. LitGPT cannot attend to what comes later."""
    from transformers import AutoModel, Gemma3TextConfig, Gemma3TextModel

    sizes = families.SIZES | {"num_hidden_layers": 7, "head_dim": 10, "sliding_window": families.WINDOW}
    model = Gemma3TextModel(Gemma3TextConfig(**sizes, use_bidirectional_attention=True)).eval()
    model.save_pretrained(tmp_path / "source")
    porter.convert(tmp_path / "source", tmp_path / "out", to="hf", max_shard_size="200KB")
    loaded = AutoModel.from_pretrained(tmp_path / "out").eval()
    with torch.inference_mode():
        wanted, found = (m(named.prompt()).last_hidden_state for m in (model, loaded))
    assert torch.equal(found, wanted)
    with pytest.raises(UnsupportedError, match="LitGPT cannot express bidirectional = True"):
        porter.convert(tmp_path / "source", tmp_path / "litgpt", to="litgpt")


def test_the_page_lists_every_model_that_litgpt_names():
    page = named.DOCS.read_text(encoding="utf-8")
    missing = [entry["name"] for entry in named.entries() if f"| {entry['name']} |" not in page]
    assert missing == []
