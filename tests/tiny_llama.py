"""A Llama of one layer whose sizes are all different, for tests that need any model: config and shapes."""

from __future__ import annotations

CONFIG = {
    "model_type": "llama",
    "num_hidden_layers": 1,
    "hidden_size": 6,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 4,
    "intermediate_size": 11,
    "vocab_size": 7,
    "max_position_embeddings": 13,
    "hidden_act": "silu",
}
SHAPES = {
    "model.embed_tokens.weight": (7, 6),
    "model.layers.0.input_layernorm.weight": (6,),
    "model.layers.0.self_attn.q_proj.weight": (8, 6),
    "model.layers.0.self_attn.k_proj.weight": (4, 6),
    "model.layers.0.self_attn.v_proj.weight": (4, 6),
    "model.layers.0.self_attn.o_proj.weight": (6, 8),
    "model.layers.0.post_attention_layernorm.weight": (6,),
    "model.layers.0.mlp.gate_proj.weight": (11, 6),
    "model.layers.0.mlp.up_proj.weight": (11, 6),
    "model.layers.0.mlp.down_proj.weight": (6, 11),
    "model.norm.weight": (6,),
    "lm_head.weight": (7, 6),
}
