"""LitGPT's own converter, for a tiny Gemma whose sizes it does not know."""

from types import ModuleType


def converter(
    *, layers: int, width: int, heads: int, groups: int, head_size: int, hidden: int, vocabulary: int
) -> ModuleType:
    """`litgpt.scripts.convert_hf_checkpoint`, which takes any name for that model's."""
    from litgpt import Config
    from litgpt.scripts import convert_hf_checkpoint as script

    config = Config(
        name="tiny-gemma",
        hf_config={"org": "test", "name": "gemma-tiny"},
        n_layer=layers,
        n_embd=width,
        n_head=heads,
        n_query_groups=groups,
        head_size=head_size,
        intermediate_size=hidden,
        padded_vocab_size=vocabulary,
        mlp_class_name="LLaMAMLP",
        norm_class_name="RMSNorm",
        bias=False,
    )
    # It finds a model's sizes by its name alone, and knows no model of these.
    script.Config.from_name = lambda *given, **options: config
    return script
