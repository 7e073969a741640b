"""Reading and writing configs of the shipped families, with tensors as the tables make them."""

import pytest

from porter.config.read import ConfigReader
from porter.config.write import write_config
from porter.tables import load_families
from porter.tables.bind import bind_dialect


class Configs:
    families = load_families()

    def example(self, family, **changes):
        canonical = self.families[family].canonical
        neutral = {name: item.neutral for name, item in canonical.hyperparameters.items()}
        return {**neutral, **canonical.example, **changes}

    def shapes(self, family, dialect, hyperparameters):
        found = self.families[family]
        bound = bind_dialect(found.dialect(dialect), found.canonical, hyperparameters)
        return {tensor.name: tensor.shape for tensor in bound}

    def write(self, family, dialect, hyperparameters, **options):
        found = self.families[family]
        shapes = self.shapes(family, dialect, hyperparameters)
        options = {"shapes": shapes, "weights_dtype": "bfloat16", **options}
        return write_config(found.dialect(dialect), found.canonical, hyperparameters, **options)

    def reader(self, family, dialect, raw, shapes=None, label="some-model"):
        found = self.families[family]
        return ConfigReader(found.dialect(dialect), found.canonical, raw, shapes or {}, label)

    def read(self, family, dialect, raw, shapes=None, label="some-model"):
        return self.reader(family, dialect, raw, shapes, label).read()

    def computing(self, family, hyperparameters, dialect=None):
        """What the model computes with: all but names, token ids, and what a dialect only assumes."""
        described = self.families[family].canonical.hyperparameters
        fields = self.families[family].dialect(dialect).config.fields if dialect else {}
        assumed = {name for name, entry in fields.items() if entry.has_assumed}
        return {
            name: value
            for name, value in hyperparameters.items()
            if not described[name].advisory and name not in assumed
        }


@pytest.fixture(scope="session")
def configs():
    return Configs()


# google/gemma-2b's config.json, as published.
GEMMA_2B = {
    "architectures": ["GemmaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "head_dim": 256,
    "hidden_act": "gelu",
    "hidden_size": 2048,
    "initializer_range": 0.02,
    "intermediate_size": 16384,
    "max_position_embeddings": 8192,
    "model_type": "gemma",
    "num_attention_heads": 8,
    "num_hidden_layers": 18,
    "num_key_value_heads": 1,
    "pad_token_id": 0,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.38.0.dev0",
    "use_cache": True,
    "vocab_size": 256000,
}

GEMMA2 = {
    "model_type": "gemma2",
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "max_position_embeddings": 8192,
    "num_attention_heads": 8,
    "num_hidden_layers": 4,
    "num_key_value_heads": 4,
    "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-06,
    "rope_theta": 10000.0,
    "sliding_window": 4096,
    "vocab_size": 256000,
}

GEMMA3 = {
    "model_type": "gemma3_text",
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 640,
    "intermediate_size": 2048,
    "max_position_embeddings": 32768,
    "num_attention_heads": 4,
    "num_hidden_layers": 8,
    "num_key_value_heads": 1,
    "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-06,
    "sliding_window": 512,
    "vocab_size": 262144,
}

LLAMA = {
    "model_type": "llama",
    "hidden_act": "silu",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "max_position_embeddings": 131072,
    "num_attention_heads": 32,
    "num_hidden_layers": 16,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 32.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
    "vocab_size": 128256,
}


@pytest.fixture
def gemma_2b():
    return dict(GEMMA_2B)


@pytest.fixture
def gemma2():
    return dict(GEMMA2)


@pytest.fixture
def gemma3():
    return dict(GEMMA3)


@pytest.fixture
def llama():
    return dict(LLAMA)
