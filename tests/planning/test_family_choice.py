"""Which family a LitGPT checkpoint is called: by structure, by its old name, or by what the user says."""

import json

import pytest
import yaml

from porter.config.write import write_config
from porter.containers.checkpoint import open_checkpoint
from porter.errors import UnsupportedError, UsageError
from porter.recognition.choose_family import choose_family, in_order, obstacle
from porter.recognition.identify import identify
from porter.sources.local import locate
from porter.tables import load_families
from porter.tables.bind import bind_dialect
from porter.verification.drift import example_hyperparameters

FAMILIES = load_families()
LITGPT = FAMILIES["decoder"].dialect("litgpt")
NAMED = [name for name, f in FAMILIES.items() if name != "decoder" and f.refusal("litgpt") is None]


def values(name, **changes):
    return {**example_hyperparameters(FAMILIES[name]), "hf_model_type": None, **changes}


@pytest.mark.parametrize("name", NAMED)
def test_each_familys_example_is_of_that_family(name):
    found = choose_family(FAMILIES, LITGPT, values(name, hf_model_type=None))
    assert found.name == name and found.missing is None


def test_what_several_families_can_express_goes_by_the_stated_order():
    plain = values("llama")
    able = [f.name for f in in_order(FAMILIES, None) if obstacle(f, LITGPT, plain) is None]
    assert able == ["llama", "mistral"]
    whole = values("llama", head_dim=11, query_scale=11)
    able = [f.name for f in in_order(FAMILIES, None) if obstacle(f, LITGPT, whole) is None]
    assert able == ["llama", "mistral", "phi3"]
    gemma = values("gemma")
    able = [f.name for f in in_order(FAMILIES, None) if obstacle(f, LITGPT, gemma) is None]
    assert able == ["gemma", "vaultgemma"]


def test_what_hugging_face_called_it_goes_first():
    assert choose_family(FAMILIES, LITGPT, values("llama", hf_model_type="mistral")).name == "mistral"
    assert choose_family(FAMILIES, LITGPT, values("llama", hf_model_type="qwen3")).name == "llama", (
        "a name that the structure contradicts is passed over"
    )


def test_no_family_says_what_the_nearest_one_lacks():
    found = choose_family(FAMILIES, LITGPT, values("llama", scale_embeddings=True, hf_model_type="llama"))
    assert found.name == "decoder" and "llama: " in found.missing and "scale_embeddings" in found.missing
    with pytest.raises(UnsupportedError, match="no table for decoder in the dialect 'hf'") as caught:
        found.dialect("hf")
    assert "scale_embeddings" in caught.value.cause


@pytest.fixture
def checkpoint(tmp_path):
    """A LitGPT directory of Llama's structure, with names and shapes alone."""
    import numpy as np
    from safetensors.numpy import save_file

    family = FAMILIES["llama"]
    hyperparameters = values("llama", hf_model_type="mistral")
    shapes = {t.name: t.shape for t in bind_dialect(LITGPT, family.canonical, hyperparameters)}
    config = write_config(LITGPT, family.canonical, hyperparameters, shapes=shapes, weights_dtype="float32")
    (tmp_path / "model_config.yaml").write_text(yaml.safe_dump(config))
    save_file({n: np.zeros(s, np.float32) for n, s in shapes.items()}, tmp_path / "lit_model.safetensors")
    return tmp_path


def test_a_checkpoint_keeps_its_model_type_and_the_user_knows_better(checkpoint):
    opened = open_checkpoint(locate(checkpoint))
    assert identify(opened, FAMILIES).family.name == "mistral"
    assert identify(opened, FAMILIES, family="llama").family.name == "llama"
    with pytest.raises(UsageError, match="unknown family 'klingon'"):
        identify(opened, FAMILIES, family="klingon")


MINE = """
extends = "llama/hf"
after   = ["llama"]

[config.match]
model_type = ["mine"]

[config.fields]
scale_embeddings = { fixed = true }

[config.write]
architectures = ["MineForCausalLM"]
model_type    = "mine"
"""


def test_a_family_of_ones_own_is_a_folder(tmp_path, monkeypatch):
    """It needs no table but its own: LitGPT's is there, and structure finds it."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "hf.toml").write_text(MINE)
    families = load_families([tmp_path])
    assert set(families["mine"].dialects) == {"hf", "litgpt", "litgpt-legacy"}
    scaled = values("llama", scale_embeddings=True)
    assert choose_family(families, LITGPT, scaled).name == "mine"
    monkeypatch.setenv("PORTER_MAPPINGS", str(tmp_path))
    assert "mine" in load_families()
    assert "mine" not in FAMILIES


def test_a_family_that_a_framework_has_no_model_for_says_why(tmp_path):
    reason = "LitGPT scales no embedding by two"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "hf.toml").write_text(MINE + f'\n[no_dialect]\nlitgpt = "{reason}"\n')
    families = load_families([tmp_path])
    assert set(families["mine"].dialects) == {"hf"}
    for dialect in ("litgpt", "litgpt-legacy"):
        with pytest.raises(UnsupportedError, match=dialect) as caught:
            families["mine"].dialect(dialect)
        assert caught.value.cause == reason
    with pytest.raises(UnsupportedError) as caught:
        families["mine"].dialect("keras")
    assert caught.value.cause is None
    # Nor is what LitGPT holds ever called that.
    assert choose_family(families, LITGPT, values("llama", scale_embeddings=True)).name != "mine"
    (tmp_path / "mine" / "hf.toml").write_text(MINE + "\n[no_dialect]\nlitgpt = true\n")
    assert "must be false or a text" in str(load_families([tmp_path])["mine"].missing)


def test_a_broken_family_of_ones_own_stops_no_other(tmp_path):
    for name, text in (("mine", MINE), ("broken", MINE.replace("scale_embeddings", "scale_embedings"))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "hf.toml").write_text(text)
    families = load_families([tmp_path])
    assert "hf" in families["mine"].dialects and "hf" in families["llama"].dialects
    with pytest.raises(UnsupportedError) as caught:
        families["broken"].dialect("hf")
    assert "scale_embedings" in caught.value.cause and "hf.toml:" in caught.value.cause
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps({"model_type": "broken"}))
    import numpy as np
    from safetensors.numpy import save_file

    save_file({"model.norm.weight": np.zeros(3, np.float32)}, tmp_path / "model" / "model.safetensors")
    with pytest.raises(UnsupportedError, match="no mapping table fits") as caught:
        identify(open_checkpoint(locate(tmp_path / "model")), families)
    assert "broken: " in caught.value.cause
    # It has no table to be used: it is told of below the list.
    listed = caught.value.cause.partition("porter has tables for ")[2].splitlines()[0]
    assert "llama" in listed and "broken" not in listed


def test_where_no_table_fits_the_nearest_one_is_the_start(checkpoint, tmp_path):
    import numpy as np
    from safetensors.numpy import save_file

    names = ["model.embed_tokens.weight", "model.layers.0.self_attn.q_norm.weight", "model.layers.0.ssm.A"]
    names += [f"model.layers.0.self_attn.{p}_proj.weight" for p in "qkvo"]
    (tmp_path / "odd").mkdir()
    save_file({name: np.zeros(3, np.float32) for name in names}, tmp_path / "odd" / "model.safetensors")
    (tmp_path / "odd" / "config.json").write_text(json.dumps({"model_type": "odd"}))
    with pytest.raises(UnsupportedError, match="no mapping table fits") as caught:
        identify(open_checkpoint(locate(tmp_path / "odd")), FAMILIES)
    assert "it knows 6 of 7 names; not, for example, 'model.layers.0.ssm.A'" in caught.value.cause
    # OLMo 2 and Qwen 3 have the norm of q, and OLMo 2 more of its own.
    assert "porter mappings new qwen3 --name mine" in caught.value.hint
    assert 'extends    = "qwen3/hf"' in caught.value.hint and 'model_type = "odd"' in caught.value.hint
    assert '# "model.layers.{layer}.ssm.A" = "…"   [3]' in caught.value.hint


def test_a_broken_table_in_the_place_of_a_shipped_one_is_not_passed_over(tmp_path):
    """The shipped table is not what the user meant to be used."""
    (tmp_path / "phi").mkdir()
    (tmp_path / "phi" / "hf.toml").write_text('extends = "llama/hf"\n[rules]\n"a" = "nothing"\n')
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "hf.toml").write_bytes(b"\xff")
    families = load_families([tmp_path])
    assert not families["phi"].dialects and "phi/hf.toml:3: the rule has no" in str(families["phi"].missing)
    assert not families["odd"].dialects and "cannot read the mapping table" in str(families["odd"].missing)
    assert "hf" in families["llama"].dialects


@pytest.mark.peer
def test_the_drift_alarm_has_a_row_for_a_broken_family(tmp_path):
    from porter.verification.drift import compare

    (tmp_path / "phi").mkdir()
    (tmp_path / "phi" / "hf.toml").write_text('extends = "llama/hf"\n[rules]\n"a" = "nothing"\n')
    families = load_families([tmp_path])
    found = compare("litgpt", {name: families[name] for name in ("llama", "phi")})
    assert [(row.family, row.result) for row in found] == [("llama", "ok"), ("phi", "differs")]
    assert "the rule has no `layout`" in found[1].problems[0]


@pytest.mark.parametrize(
    ("fields", "nearest"),
    [
        ({}, "llama"),
        ({"mlp_bias": False, "hidden_act": "silu"}, "llama"),
        # Fields that one of them alone has.
        ({"sliding_window": 5}, "mistral"),
        ({"hidden_activation": "gelu_pytorch_tanh"}, "gemma"),
    ],
)
def test_of_families_with_the_same_names_the_one_that_knows_the_config_is_nearest(tmp_path, fields, nearest):
    """Llama's names are Gemma's and Mistral's too; where nothing tells them apart it is the plain one."""
    import numpy as np
    from safetensors.numpy import save_file

    names = ["model.embed_tokens.weight", "model.norm.weight"]
    names += [f"model.layers.0.self_attn.{p}_proj.weight" for p in "qkvo"]
    names += [f"model.layers.0.mlp.{p}_proj.weight" for p in ("gate", "up", "down")]
    names += [f"model.layers.0.{p}_layernorm.weight" for p in ("input", "post_attention")]
    (tmp_path / "odd").mkdir()
    save_file({name: np.zeros(3, np.float32) for name in names}, tmp_path / "odd" / "model.safetensors")
    (tmp_path / "odd" / "config.json").write_text(json.dumps({"model_type": "odd"} | fields))
    with pytest.raises(UnsupportedError, match="no mapping table fits") as caught:
        identify(open_checkpoint(locate(tmp_path / "odd")), FAMILIES)
    assert f"nearest is {nearest}: it knows 11 of 11 names" in caught.value.cause


def test_the_skeleton_of_a_family_is_a_table(tmp_path):
    from porter.api.mappings import check, new_family

    path = new_family("llama", "mine", tmp_path / "mappings")
    assert path == tmp_path / "mappings" / "mine" / "hf.toml"
    checked = check(path)
    assert (checked.family, checked.name) == ("mine", "hf")
    families = load_families([tmp_path / "mappings"])
    assert families["mine"].dialect("hf").config.match["model_type"] == ["mine"]
    with pytest.raises(UsageError, match="a family 'mine' already"):
        new_family("llama", "mine", tmp_path / "mappings")
    with pytest.raises(UsageError, match="cannot be a family's name"):
        new_family("llama", "../mine", tmp_path / "mappings")
