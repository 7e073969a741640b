"""What docs/python.md shows runs, on a Gemma 2B of full size whose weights are holes in a file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.peer

PAGE = Path(__file__).resolve().parents[2] / "docs" / "python.md"
CONFIG: dict[str, Any] = {
    "model_type": "gemma",
    "num_hidden_layers": 18,
    "hidden_size": 2048,
    "intermediate_size": 16384,
    "num_attention_heads": 8,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "vocab_size": 256000,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-6,
    "hidden_activation": "gelu_pytorch_tanh",
}
LAYER = {
    "self_attn.q_proj": (2048, 2048),
    "self_attn.k_proj": (256, 2048),
    "self_attn.v_proj": (256, 2048),
    "self_attn.o_proj": (2048, 2048),
    "mlp.gate_proj": (16384, 2048),
    "mlp.up_proj": (16384, 2048),
    "mlp.down_proj": (2048, 16384),
    "input_layernorm": (2048,),
    "post_attention_layernorm": (2048,),
}

_AFTERWARDS = """
from pathlib import Path
import re
status = Path("/proc/self/status").read_text()
own = int(re.search(r"RssAnon:\\s+(\\d+)", status)[1]) / 1024
print(own, file=sys.stderr)
emit({
    "parameters": sum(p.numel() for p in model.parameters()),
    "meta": [name for name, tensor in model.state_dict().items() if tensor.is_meta],
    "own": own, "tensors": len(state),
})
"""


@pytest.fixture
def gemma_2b(hub: Any, full_size: Any) -> None:
    """5 GB in the Hub's cache, on no disk space."""
    shapes = {"model.embed_tokens.weight": (256000, 2048), "model.norm.weight": (2048,)}
    for layer in range(18):
        shapes |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in LAYER.items()}
    folder = hub.cache / "models--google--gemma-2b"
    full_size(folder / "snapshots" / ("0" * 40), CONFIG, shapes)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0" * 40)


def test_gemma_2b_into_a_stock_litgpt_in_200_mb(python: Any, gemma_2b: None) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    shown = next(block for block in blocks if "from litgpt import" in block)
    found = python(shown + _AFTERWARDS)
    assert found["tensors"] == 129
    # The published number, and the head, which LitGPT counts once more.
    assert found["parameters"] == 2_506_172_416 + 256_000 * 2048
    assert found["meta"] == [], "every weight has arrived"
    # MiB. What is fused takes 189 MB, the imports the rest; the weights are 6 GB to who copies them.
    assert found["own"] < 1200
