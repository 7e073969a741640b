"""Which activation, which norms and where: what the installed implementations of Gemma really compute.

    python examples/gemma_modules.py

A tiny Gemma 1, 2 and 3 with random weights is built in each of transformers, LitGPT, KerasHub and porter's
own model, with the switches that the published models have. One block runs, and what goes into and comes out
of its parts is compared as values. No name of a module and no field of a config is believed.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

# Keras chooses its backend when it is imported.
os.environ.setdefault("KERAS_BACKEND", "torch")

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "tanh GELU": lambda x: F.gelu(x, approximate="tanh"),
    "exact GELU": F.gelu,
    "SiLU": F.silu,
    "ReLU": F.relu,
}
HEAD = 10
TOKENS = torch.arange(30)[None]


@dataclass(frozen=True)
class Block:
    """One block's parts, as an implementation calls them, and how to run the model that it is in."""

    code: str
    run: Callable[[], Any]
    block: Any
    attention: Any
    gate: Any
    up: Any
    down: Any
    norms: tuple[Any, ...]


@dataclass(frozen=True)
class Found:
    """What was seen: the activation, whether it gates, where norms stand, and what their weight means."""

    activation: str
    gated: bool
    norms: tuple[str, ...]
    weight: str
    residual: bool


def look(parts: Block) -> Found:
    """Runs the block and says what it computes."""
    calls: dict[int, tuple[Tensor, Tensor]] = {}
    watched = [parts.block, parts.attention, parts.gate, parts.up, parts.down, *parts.norms]
    undo = [_watch(part, calls) for part in watched]
    with torch.no_grad():
        parts.run()
    for back in undo:
        back()
    x, y = calls[id(parts.block)]
    attended, gate, up = (calls[id(part)][1] for part in (parts.attention, parts.gate, parts.up))
    entered, left = calls[id(parts.down)]
    fits = [name for name, act in ACTIVATIONS.items() if _close(act(gate) * up, entered)]
    added = {"attention": attended, "the MLP": left}
    places = []
    for norm in parts.norms:
        before, after = calls[id(norm)]
        if before.shape[-1] == HEAD:
            places.append("on each head of q and k")
        elif torch.equal(before, x):
            places.append("before attention")
        elif torch.equal(after, calls[id(parts.gate)][0]):
            places.append("before the MLP")
        else:
            (where,) = (name for name, value in added.items() if torch.equal(before, value))
            added[where] = after
            places.append(f"behind {where}")
    return Found(
        activation=" or ".join(fits) or "none of " + ", ".join(ACTIVATIONS),
        gated=bool(fits),
        norms=tuple(dict.fromkeys(sorted(places, key=ORDER.index))),
        weight=" or ".join(dict.fromkeys(_meaning(norm, *calls[id(norm)]) for norm in parts.norms)),
        residual=_close(x + added["attention"] + added["the MLP"], y),
    )


ORDER = (
    *("before attention", "on each head of q and k", "behind attention"),
    *("before the MLP", "behind the MLP"),
)


def _meaning(norm: Any, before: Tensor, after: Tensor) -> str:
    weight = torch.as_tensor(norm.scale.value if hasattr(norm, "scale") else norm.weight).detach()
    plain = before * torch.rsqrt(before.square().mean(-1, keepdim=True) + 1e-6)
    meanings = {"1 + w": plain * (1 + weight), "w": plain * weight}
    return " or ".join(name for name, value in meanings.items() if _close(value, after)) or "neither"


def _close(one: Tensor, two: Tensor) -> bool:
    return bool((one - two).abs().max() <= 2e-6 * two.abs().max())


def _watch(part: Any, calls: dict[int, tuple[Tensor, Tensor]]) -> Callable[[], None]:
    """Notes the first argument and the first result of a part. Keras' layers know no hooks of PyTorch."""
    own = part.call if hasattr(part, "call") else part.forward

    def noted(*args: Any, **kwargs: Any) -> Any:
        given = args[0] if args else kwargs["hidden_states"]
        result = own(*args, **kwargs)
        first = result[0] if isinstance(result, tuple) else result
        # The norm on q runs first, and stands for that on k.
        calls[id(part)] = given.detach().clone(), first.detach().clone()
        return result

    name = "call" if hasattr(part, "call") else "forward"
    setattr(part, name, noted)
    return lambda: setattr(part, name, own)


# --- the implementations -----------------------------------------------------------------------------

SIZES = {"gemma": 1, "gemma2": 2, "gemma3": 3}


def transformers(family: str) -> Block:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        "gemma3_text" if family == "gemma3" else family,
        vocab_size=40,
        hidden_size=66,
        intermediate_size=101,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=HEAD,
    )
    model = _random(AutoModelForCausalLM.from_config(config))
    block = model.model.layers[0]
    mlp = block.mlp
    return Block(
        _version("transformers"), lambda: model(TOKENS), block, block.self_attn,
        mlp.gate_proj, mlp.up_proj, mlp.down_proj, _rms_norms(block),
    )  # fmt: skip


def litgpt(family: str) -> Block:
    from litgpt.model import GPT

    model = _random(GPT(_litgpt_config(family)))
    block = model.transformer.h[0]
    mlp = block.mlp
    return Block(
        _version("litgpt"), lambda: model(TOKENS), block, block.attn, mlp.fc_1, mlp.fc_2, mlp.proj,
        _rms_norms(block),
    )  # fmt: skip


def porter(family: str) -> Block:
    from porter.models import GPT, Config

    stated = asdict(_litgpt_config(family))
    known = {item.name for item in fields(Config)}
    config = Config.from_mapping({name: value for name, value in stated.items() if name in known})
    model = _random(GPT(config))
    block = model.transformer.h[0]
    mlp = block.mlp
    return Block(
        "porter", lambda: model(TOKENS), block, block.attn, mlp.fc_1, mlp.fc_2, mlp.proj, _rms_norms(block)
    )


def keras_hub(family: str) -> Block:
    import keras_hub as hub

    sizes: dict[str, Any] = {"vocabulary_size": 40, "num_layers": 2, "num_query_heads": 6, "head_dim": HEAD}
    sizes |= {"num_key_value_heads": 2, "hidden_dim": 66, "intermediate_dim": 202}
    if family != "gemma":
        # As in the published presets.
        sizes |= {"use_post_ffw_norm": True, "use_post_attention_norm": True}
        sizes |= {"use_sliding_window_attention": True, "sliding_window_size": 512}
    if family == "gemma3":
        model = hub.models.Gemma3Backbone(**sizes, use_query_key_norm=True, image_size=32)
    else:
        model = hub.models.GemmaBackbone(**sizes)
    for variable in model.weights:
        variable.assign(0.3 * torch.randn(tuple(variable.shape)))
    block = model.transformer_layers[0]
    names = ("pre_attention_norm", "post_attention_norm", "pre_ffw_norm", "post_ffw_norm")
    norms = [getattr(block, name) for name in names if getattr(block, name, None) is not None]
    norms += [norm for norm in (getattr(block.attention, "query_norm", None),) if norm is not None]
    inputs = {"token_ids": TOKENS, "padding_mask": torch.ones_like(TOKENS)}
    return Block(
        _version("keras-hub"), lambda: model(inputs), block, block.attention,
        block.gating_ffw, block.gating_ffw_2, block.ffw_linear, tuple(norms),
    )  # fmt: skip


def _litgpt_config(family: str) -> Any:
    """LitGPT's own entry of a published model, in tiny sizes."""
    from litgpt.config import Config

    name = {"gemma": "Gemma-2b", "gemma2": "Gemma-2-2b", "gemma3": "Gemma-3-1b-it"}[family]
    changes: dict[str, Any] = {"n_layer": 2, "n_embd": 66, "n_head": 6, "n_query_groups": 2}
    changes |= {
        "head_size": HEAD,
        "intermediate_size": 101,
        "vocab_size": 40,
        "padded_vocab_size": 40,
        "norm_eps": 1e-6,
    }
    known = Config.from_name(name)
    for key in ("sliding_window_indices", "rope_indices"):
        if getattr(known, key, None):
            changes[key] = getattr(known, key)[:2]
    return Config.from_name(name, **changes)


def _random(model: Any) -> Any:
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(0.3 * torch.randn(weight.shape))
    return model.eval()


def _rms_norms(block: Any) -> tuple[Any, ...]:
    # One of the two on q and k stands for both.
    found = {name: part for name, part in block.named_modules() if "RMSNorm" in type(part).__name__}
    return tuple(part for name, part in found.items() if not name.endswith(("k_norm", "norm_k")))


def _version(package: str) -> str:
    import importlib.metadata

    return f"{package} {importlib.metadata.version(package)}"


IMPLEMENTATIONS = {"transformers": transformers, "litgpt": litgpt, "keras_hub": keras_hub, "porter": porter}


def rows() -> Iterator[tuple[str, str, Found]]:
    """Family, whose code, and what it computes, for all that is installed."""
    torch.manual_seed(0)
    for family in SIZES:
        for package, make in IMPLEMENTATIONS.items():
            if importlib.util.find_spec(package) is not None:
                parts = make(family)
                yield family, parts.code, look(parts)


def main() -> None:
    print("| family | implementation | MLP | norms | a norm multiplies by | residual stream |")
    print("| --- | --- | --- | --- | --- | --- |")
    for family, code, found in rows():
        mlp = f"{found.activation}(gate) · up" if found.gated else found.activation
        stream = "x + attention + MLP" if found.residual else "something else"
        print(f"| {family} | {code} | {mlp} | {', '.join(found.norms)} | {found.weight} | {stream} |")


if __name__ == "__main__":
    main()
