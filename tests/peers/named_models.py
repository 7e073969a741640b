"""Every model that LitGPT knows by name, through porter; run as a script, it writes docs/models.md.

At full size, on the meta device: the tables make exactly the names and shapes of LitGPT's module and of
transformers', built from the config that porter writes. At a tiny size of the same structure, with random
weights: LitGPT to Hugging Face and back gives the same bytes, and both frameworks the same logits.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor

TOKENS = 300
WINDOW = 23
VOCAB = 211
# max |Δ| / max |logit| in float32.
BOUND = 2e-6
DOCS = Path(__file__).resolve().parents[2] / "docs" / "models.md"

# What two models may differ in and still be of one structure: sizes, numbers, and what they are called.
_SIZES = (
    *("name", "hf_config", "block_size", "n_layer", "n_embd", "vocab_size", "padding_multiple"),
    *("padded_vocab_size", "norm_eps", "n_head", "head_size", "n_query_groups", "attention_scores_scalar"),
    *("sliding_window_size", "sliding_window_indices", "rope_base", "rope_condense_ratio", "rope_indices"),
    *("rope_local_base_freq", "intermediate_size", "moe_intermediate_size", "n_expert", "n_expert_per_token"),
    *("rotary_percentage", "norm_topk_prob", "rope_adjustments"),
)


@dataclasses.dataclass(frozen=True)
class Result:
    """One named model: the family that it is ported to, and how far the two frameworks' logits are apart."""

    name: str
    family: str
    tensors: int
    logits: float


def entries() -> list[dict[str, Any]]:
    from litgpt.config import configs

    return list(configs)


def full(entry: Mapping[str, Any]) -> dict[str, Any]:
    """All fields of a named config."""
    from litgpt.config import Config

    return dataclasses.asdict(Config(**entry))


def structure(entry: Mapping[str, Any]) -> tuple[object, ...]:
    """What a model computes, apart from sizes and numbers."""
    raw = full(entry)
    heads, groups = raw["n_head"], raw["n_query_groups"]
    switches = sorted((key, str(value)) for key, value in raw.items() if key not in _SIZES)
    words = tuple(word for word in ("Gemma", "OLMo") if word in raw["name"])
    rope = tuple(sorted(raw["rope_adjustments"] or ()))
    return (
        *switches,
        words,
        rope,
        "all" if groups == heads else "one" if groups == 1 else "some",
        heads * raw["head_size"] == raw["n_embd"],
        raw["sliding_window_size"] is not None,
        raw["rope_local_base_freq"] is not None,
        raw["rope_condense_ratio"] != 1,
        raw["rotary_percentage"] == 1,
    )


def tiny(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The same structure with sizes that are all different, and windows far shorter than the prompt.

    Sizes are multiples of 4 where transformers multiplies the matrices of many experts at once.
    """
    raw = full(entry)
    groups = raw["n_query_groups"]
    heads = 6
    merged = raw["n_head"] * raw["head_size"] == raw["n_embd"]
    # Two thirds of 12, 16, 20 or 24 rotate an even number of dims, as the full size does.
    head_size = {0.25: 16, 0.4: 20, 0.5: 12, 0.75: 16}.get(raw["rotary_percentage"], 12)
    layers = 7 if raw["sliding_window_size"] else 3
    small = {
        "block_size": 400,
        "n_layer": layers,
        "n_head": heads,
        "n_query_groups": heads if groups == raw["n_head"] else 1 if groups == 1 else 2,
        "head_size": head_size,
        "n_embd": heads * head_size if merged else 96,
        "intermediate_size": 104,
        "vocab_size": VOCAB,
        "padded_vocab_size": VOCAB,
    }
    if raw["n_expert"]:
        small |= {"n_expert": 5, "n_expert_per_token": 2}
        small["moe_intermediate_size"] = 44 if raw["moe_intermediate_size"] else None
    if raw["attention_scores_scalar"]:
        same = raw["attention_scores_scalar"] == raw["head_size"]
        small["attention_scores_scalar"] = head_size if same else 14
    if raw["sliding_window_size"]:
        small["sliding_window_size"] = WINDOW
        small["sliding_window_indices"] = raw["sliding_window_indices"][:layers]
    if raw["rope_indices"]:
        small["rope_indices"] = raw["rope_indices"][:layers]
    if "original_max_seq_len" in (raw["rope_adjustments"] or {}):
        small["rope_adjustments"] = raw["rope_adjustments"] | {"original_max_seq_len": 64}
    return raw | small


def prompt() -> Tensor:
    return torch.randint(VOCAB, (1, TOKENS), generator=torch.Generator().manual_seed(3))


def random_weights(shapes: Mapping[str, tuple[int, ...]], *, centre: float) -> dict[str, Tensor]:
    """Projections keep the variance of what passes through; norms scatter around `centre`."""
    generator = torch.Generator().manual_seed(11)
    found = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=generator)
        norm = "norm" in name or "ln_f" in name
        found[name] = 0.3 * noise + centre * norm if len(shape) == 1 else noise / shape[-1] ** 0.5
        if norm and name.endswith(".bias"):
            found[name] = 0.3 * noise
    return found


def litgpt_module(path: Path) -> Any:
    """The stock module, after a strict load of `lit_model.safetensors`."""
    from litgpt.config import Config
    from litgpt.model import GPT

    with torch.device("meta"):
        model = GPT(Config.from_file(path / "model_config.yaml"))
    model.load_state_dict(load_file(path / "lit_model.safetensors"), strict=True, assign=True)
    model.cos, model.sin = model.rope_cache(device="cpu")
    return model.eval()


def check_full_size(entry: Mapping[str, Any]) -> tuple[str, int]:
    """The family and the number of tensors. Raises AssertionError or PorterError."""
    from porter.config.read import ConfigReader
    from porter.config.write import write_config
    from porter.recognition.choose_family import choose_family
    from porter.tables import load_families
    from porter.tables.bind import bind_dialect
    from porter.verification.modules import expected_tensors

    families = load_families()
    raw = full(entry)
    expected = expected_tensors("litgpt", raw).shapes
    base = families["decoder"]
    source = base.dialect("litgpt")
    values = ConfigReader(source, base.canonical, raw, expected, raw["name"]).read()
    assert {t.name: t.shape for t in bind_dialect(source, base.canonical, values)} == expected
    family = choose_family(families, source, values)
    assert family.missing is None, family.missing
    target = family.dialect("hf")
    made = {t.name: t.shape for t in bind_dialect(target, family.canonical, values)}
    config = write_config(target, family.canonical, values, shapes=made, weights_dtype="float32")
    built = expected_tensors("transformers", config)
    heads = {name for name in made if name in ("lm_head.weight", "embed_out.weight")}
    tied = heads if values["tie_embeddings"] else set()
    assert {n: s for n, s in made.items() if n not in tied} == {
        n: s for n, s in built.shapes.items() if n not in tied
    }
    return family.name, len(expected)


def check_tiny(entry: Mapping[str, Any], folder: Path) -> tuple[str, float]:
    """The family, and max |Δ| / max |logit| of transformers against LitGPT. Raises AssertionError."""
    from transformers import AutoModelForCausalLM

    import porter
    from porter.verification.modules import expected_tensors

    raw = tiny(entry)
    source = folder / "litgpt"
    source.mkdir()
    shapes = expected_tensors("litgpt", raw).shapes
    centre = 0.0 if "Gemma" in raw["name"] else 1.0
    weights = random_weights(shapes, centre=centre)
    if "Gemma" in raw["name"]:
        weights["lm_head.weight"] = weights["transformer.wte.weight"].clone()
    save_file(weights, source / "lit_model.safetensors")
    (source / "model_config.yaml").write_text(yaml.safe_dump(raw))
    # transformers' defaults for these are ids of the full vocabulary.
    ids = {"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}
    (source / "generation_config.json").write_text(json.dumps(ids))

    porter.convert(source, folder / "hf", to="hf")
    porter.convert(folder / "hf", folder / "again", to="litgpt")
    porter.convert(folder / "again", folder / "back", to="hf")
    again = load_file(folder / "again" / "lit_model.safetensors")
    assert again.keys() == weights.keys() and all(torch.equal(again[n], w) for n, w in weights.items())
    one, two = (load_file(folder / name / "model.safetensors") for name in ("hf", "back"))
    assert one.keys() == two.keys() and all(torch.equal(two[n], w) for n, w in one.items())
    config = json.loads((folder / "hf" / "config.json").read_text())
    returned = json.loads((folder / "back" / "config.json").read_text())
    assert config == returned
    with torch.inference_mode():
        expected = litgpt_module(source)(prompt())
        model, loading = AutoModelForCausalLM.from_pretrained(folder / "hf", output_loading_info=True)
        assert not any(loading.values()), loading
        found = model.eval()(prompt()).logits
        again_logits = litgpt_module(folder / "again")(prompt())
    scale = expected.abs().max()
    apart = max((found - expected).abs().max(), (again_logits - expected).abs().max())
    return config["model_type"], float(apart / scale)


def check(entry: Mapping[str, Any]) -> Result:
    """All of it. Raises AssertionError or PorterError."""
    family, tensors = check_full_size(entry)
    with tempfile.TemporaryDirectory() as folder:
        model_type, logits = check_tiny(entry, Path(folder))
    assert model_type == family, f"{model_type} at a tiny size, {family} at its own"
    assert logits <= BOUND, f"logits differ by {logits:.1e}"
    return Result(str(entry["name"]), family, tensors, logits)


def page(results: list[Result], failures: Mapping[str, str]) -> str:
    """docs/models.md."""
    families = sorted({result.family for result in results})
    count = len(results) + len(failures)
    text = f"""\
# Models

LitGPT 0.5.13 knows {count} models by name; {len(results)} of them go to Hugging Face and back.
`make families` writes this page, and checks for each:

- at full size, without weights: the tables make exactly the names and shapes of LitGPT's module, and of
  transformers' module, built from the config that porter writes;
- at a tiny size of the same structure, with random weights: from LitGPT to Hugging Face, to LitGPT and to
  Hugging Face again the bytes and the config stay the same, and on {TOKENS} tokens the logits of both
  frameworks differ by at most {BOUND:.0e} of the largest (the last column says by how much).

They are of {len(families)} families: {", ".join(families)}.

| LitGPT's name | family | tensors | logits |
| --- | --- | ---: | ---: |
"""
    lines = text.splitlines()
    lines += [f"| {r.name} | {r.family} | {r.tensors} | {r.logits:.0e} |" for r in results]
    if failures:
        lines += ["", "What does not go both ways:", ""]
        lines += [f"- {name}: {reason}" for name, reason in failures.items()]
    return "\n".join(lines) + "\n"


def main() -> int:
    torch.set_num_threads(1)
    results, failures = [], {}
    for entry in entries():
        try:
            results.append(check(entry))
        except Exception as error:  # each model is a row, whatever is wrong with it
            failures[entry["name"]] = f"{type(error).__name__}: {error}".replace("\n", " ")[:300]
            print(f"failed   {entry['name']}: {failures[entry['name']]}", file=sys.stderr, flush=True)
    DOCS.write_text(page(results, failures), encoding="utf-8")
    print(f"{len(results)} of {len(results) + len(failures)} models go both ways; wrote {DOCS.name}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
