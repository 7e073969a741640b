"""Logits layer by layer: the same numbers as the whole model in memory, and mistakes found in their layer."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import porter
from porter.errors import DifferenceError, UsageError
from porter.verification.logit_sums import LogitSums
from porter.verification.own_code import build
from porter.verification.page import prose
from porter.verification.sample_ids import sample_ids

pytestmark = pytest.mark.peer

VOCAB, TOKENS = 211, 600


def prompt():
    """The ids that `models` runs the whole frameworks on."""
    return torch.randint(VOCAB, (TOKENS,), generator=torch.Generator().manual_seed(3))


def layered(code, config, weights):
    """Logits (600, 211) by one layer and 50 rows of the head at a time, and the states on the way."""
    model = build(code, config, weights, TOKENS, torch.float32)
    states = {}
    model.hidden(prompt(), lambda place, state: states.setdefault(place, state.clone()))
    return torch.cat([model.logits(at, min(at + 50, VOCAB)) for at in range(0, VOCAB, 50)], dim=-1), states


@pytest.fixture(scope="module")
def ported(models, tmp_path_factory):
    """The LitGPT directory that porter makes of one of the models."""
    made = {}

    def port(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp("ported") / name
            porter.convert(models.path(name), made[name], to="litgpt")
        return made[name]

    return port


# --- one layer at a time is the whole model ----------------------------------------------------------


@pytest.mark.parametrize("name", ["gemma2", "gemma3", "llama-rope", "llama-tied", "llama-biases", "gpt-neox"])
def test_transformers_one_layer_at_a_time(models, name):
    path = models.path(name)
    found, states = layered(
        "transformers", json.loads((path / "config.json").read_text()), porter.load_state_dict(path)
    )
    assert torch.equal(found, models.hf(path)[0])
    layers = len(states) - 2
    assert list(states) == ["embedding", *(f"layer {n}" for n in range(layers)), "final norm"]


@pytest.mark.parametrize("code", ["litgpt", "porter"])
@pytest.mark.parametrize("name", ["gemma2", "gemma3", "gpt-neox"])
def test_litgpt_and_porters_model_one_layer_at_a_time(models, ported, code, name):
    config = yaml.safe_load((ported(name) / "model_config.yaml").read_text())
    found, _ = layered(code, config, porter.load_state_dict(ported(name)))
    assert torch.equal(found, getattr(models, code)(ported(name))[0, :, :VOCAB])


def test_the_states_are_those_that_transformers_returns(models):
    from transformers import AutoModelForCausalLM

    path = models.path("gemma3")
    _, states = layered(
        "transformers", json.loads((path / "config.json").read_text()), porter.load_state_dict(path)
    )
    with torch.inference_mode():
        whole = AutoModelForCausalLM.from_pretrained(path)(prompt()[None], output_hidden_states=True)
    # Theirs ends with the normed state in place of the last layer's.
    *expected, normed = whole.hidden_states
    for place, state in zip(states, expected, strict=False):
        assert torch.equal(states[place], state), place
    assert torch.equal(states["final norm"], normed)


def test_experts_are_joined_as_transformers_does(tmp_path):
    from transformers import AutoModelForCausalLM, MixtralConfig

    config = MixtralConfig(
        # What multiplies the experts asks for rows of 16 bytes.
        vocab_size=VOCAB,
        hidden_size=64,
        intermediate_size=100,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=10,
        num_local_experts=5,
        max_position_embeddings=700,
    )
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(tmp_path / "hf")
    with torch.inference_mode():
        expected = model.eval()(prompt()[None]).logits[0]
    raw = json.loads((tmp_path / "hf" / "config.json").read_text())
    found, _ = layered("transformers", raw, porter.load_state_dict(tmp_path / "hf"))
    assert torch.equal(found, expected)
    porter.convert(tmp_path / "hf", tmp_path / "lit", to="litgpt")
    compared = porter.compare_logits(tmp_path / "hf", tmp_path / "lit", tokens=300)
    assert compared.agree and compared.relative < 1e-5


# --- sound ports ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gemma3", "llama-rope", "gpt-neox"])
def test_a_sound_port_agrees(models, ported, name):
    found = porter.compare_logits(models.path(name), ported(name))
    assert found.agree and found.first_parted is None
    assert found.source_code.startswith("transformers ") and found.out_code.startswith("litgpt ")
    assert found.relative < 2e-6 and found.kl < 1e-9
    assert (found.top1, found.top5) == (1.0, 1.0)
    assert (found.tokens, found.vocab, found.ids_from, found.losses) == (TOKENS, VOCAB, None, None)
    assert isinstance(found.seed, int) and found.notes == ()
    assert all(state.relative <= state.bound == 3e-5 for state in found.states)


def test_what_is_no_frameworks_own_runs_in_porters_model(models, ported, monkeypatch):
    from porter.verification import own_code

    monkeypatch.setattr(own_code, "installed", lambda code: code == "porter")
    found = porter.compare_logits(models.path("gemma2"), ported("gemma2"), tokens=100)
    assert found.agree
    assert found.source_code.startswith("porter ") and "transformers is not installed" in found.notes[0]
    assert "by porter's tables" in found.notes[0]


def test_kerashub_runs_its_own_presets(tmp_path):
    # Keras chooses its backend when it is imported, and by default asks for TensorFlow.
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras_hub

    torch.manual_seed(2)
    built = keras_hub.models.GemmaBackbone(
        vocabulary_size=VOCAB,
        num_layers=2,
        num_query_heads=6,
        num_key_value_heads=2,
        hidden_dim=66,
        intermediate_dim=202,
        head_dim=10,
        final_logit_soft_cap=3.0,
        attention_logit_soft_cap=5.0,
        use_post_ffw_norm=True,
        use_post_attention_norm=True,
        use_sliding_window_attention=True,
        sliding_window_size=23,
    )
    for variable in built.weights:
        variable.assign(torch.randn(tuple(variable.shape)) * (0.3 if len(variable.shape) == 1 else 0.1))
    built.save_to_preset(str(tmp_path / "preset"))
    ids = prompt()[None]
    with torch.inference_mode():
        hidden = built({"token_ids": ids, "padding_mask": torch.ones_like(ids)})
        expected = built.token_embedding(hidden, reverse=True)[0]
    raw = json.loads((tmp_path / "preset" / "config.json").read_text())
    found, _ = layered("keras", raw, porter.load_state_dict(tmp_path / "preset"))
    assert torch.equal(found, expected)
    porter.convert(tmp_path / "preset", tmp_path / "hf", to="hf")
    compared = porter.compare_logits(tmp_path / "preset", tmp_path / "hf")
    assert compared.agree and compared.source_code.startswith("keras-hub ")
    # Most seen in sound presets: 5e-6. Negative control: not the very same numbers.
    assert 0 < compared.relative < 1e-5


# --- wrong ports ---------------------------------------------------------------------------------------


def mutant(source: Path, out: Path, *, weights=None, config=None) -> Path:
    """A copy of a LitGPT directory with other weights, made by `weights(state)`, or with other fields."""
    shutil.copytree(source, out)
    (out / "porter-receipt.json").unlink()
    if weights:
        state = load_file(out / "lit_model.safetensors")
        weights(state)
        save_file(state, out / "lit_model.safetensors")
    if config:
        path = out / "model_config.yaml"
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | config))
    return out


def gate_and_up(layer):
    def swap(state):
        one, two = (f"transformer.h.{layer}.mlp.{part}.weight" for part in ("fc_1", "fc_2"))
        state[one], state[two] = state[two], state[one]

    return swap


def noise(name, size=0.01):
    def add(state):
        state[name] += size * torch.randn(state[name].shape, generator=torch.Generator().manual_seed(4))

    return add


WRONG_WEIGHTS = {
    "gate and up": ("gemma3", gate_and_up(4), "layer 4"),
    "gate and up of the first layer": ("gemma3", gate_and_up(0), "layer 0"),
    "the embedding": ("llama-tied", noise("transformer.wte.weight"), "embedding"),
    "the last norm": ("gemma3", noise("transformer.ln_f.weight"), "final norm"),
    "a stale head": ("llama", noise("lm_head.weight"), "logits"),
}


@pytest.mark.parametrize("mistake", WRONG_WEIGHTS)
def test_the_first_place_where_wrong_weights_show(models, ported, tmp_path, mistake):
    name, change, place = WRONG_WEIGHTS[mistake]
    found = porter.compare_logits(
        models.path(name), mutant(ported(name), tmp_path / "out", weights=change), tokens=200
    )
    assert found.first_parted == place and not found.agree
    assert found.kl > 1e-6


WRONG_CONFIG = {
    "an exact GELU": ("gemma3", {"gelu_approximate": "none"}, "layer 0"),
    # The sixth layer is the first that looks at everything, by the global base.
    "the global RoPE base": ("gemma3", {"rope_base": 10000}, "layer 5"),
    "the local RoPE base": ("gemma3", {"rope_local_base_freq": 9000.0}, "layer 0"),
    "the window": ("gemma3", {"sliding_window_size": 24}, "layer 0"),
    "the query scale": ("gemma3", {"attention_scores_scalar": 15}, "layer 0"),
    "no soft-cap of the logits": ("gemma2", {"final_logit_softcapping": None}, "logits"),
    "another soft-cap of the scores": ("gemma2", {"attention_logit_softcapping": 6.0}, "layer 0"),
    "embeddings unscaled": ("gemma3", {"scale_embeddings": False}, "embedding"),
}


@pytest.mark.parametrize("mistake", WRONG_CONFIG)
def test_the_first_place_where_a_wrong_config_shows(models, ported, tmp_path, mistake):
    name, change, place = WRONG_CONFIG[mistake]
    out = mutant(ported(name), tmp_path / "out", config=change)
    found = porter.compare_logits(models.path(name), out, tokens=200)
    assert found.first_parted == place and not found.agree


def test_bfloat16_has_a_band_of_its_own(models, ported, tmp_path):
    sound = porter.compare_logits(models.path("gemma3"), ported("gemma3"), dtype="bfloat16", tokens=200)
    assert sound.agree and sound.dtype == "bfloat16"
    # Of the size of bfloat16's resolution, 2^-8: the band is not empty, and not everything.
    assert all(2**-10 < state.bound < 0.2 for state in sound.states)
    wrong = mutant(ported("gemma3"), tmp_path / "out", weights=gate_and_up(2))
    found = porter.compare_logits(models.path("gemma3"), wrong, dtype="bfloat16", tokens=200)
    assert found.first_parted == "layer 2"


def test_other_depths_are_no_ports_of_each_other(models, ported):
    with pytest.raises(DifferenceError, match="7 and 4 layers") as caught:
        porter.compare_logits(models.path("gemma3"), ported("gemma2"))
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("wrong", [{"dtype": "float16"}, {"tokens": 1}])
def test_wrong_words_are_refused(models, wrong):
    with pytest.raises(UsageError):
        porter.compare_logits(models.path("gemma3"), models.path("gemma3"), **wrong)


# --- through `porter verify` ---------------------------------------------------------------------------


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "porter", *map(str, arguments)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_the_command_runs_both(models, ported, tmp_path):
    wrong = mutant(ported("gemma3"), tmp_path / "wrong", weights=gate_and_up(4))
    report = tmp_path / "wrong.html"
    done = command("verify", models.path("gemma3"), wrong, "--logits", "--json", "--report", report)
    assert done.returncode == 3, done.stderr
    found = json.loads(done.stdout)
    assert found["logits"]["first_parted"] == "layer 4" and found["outcome"] == "differs"
    assert found["logits"]["states"][0]["place"] == "embedding"
    written = report.read_text(encoding="utf-8")
    assert "the two part at layer 4" in written and "<svg" in written and 'class="heat"' in written


def test_what_only_runs_otherwise_is_no_right_port(models, ported, monkeypatch):
    """Everything that is stored is equal, and the framework computes something else."""
    from litgpt import model

    source, out = models.path("gemma2"), ported("gemma2")
    sound = porter.verify(source, out, logits="float32")
    assert sound.outcome == "equal" and sound.logits.agree
    assert porter.verify(source, out).logits is None

    def silu(self, x):
        return self.proj(torch.nn.functional.silu(self.fc_1(x)) * self.fc_2(x))

    monkeypatch.setattr(model.GemmaMLP, "forward", silu)
    wrong = porter.verify(source, out, logits="float32")
    assert not wrong.right and wrong.weights.outcome == wrong.config.outcome == "equal"
    assert "the two part at layer 0" in wrong.says


def test_rounded_weights_are_still_a_right_port(models, tmp_path):
    porter.convert(models.path("gemma3"), tmp_path / "half", to="litgpt", dtype="bfloat16")
    found = porter.verify(models.path("gemma3"), tmp_path / "half", logits="float32")
    assert found.outcome == "rounded" and found.right and found.logits.first_parted == "embedding"


def test_a_port_that_cannot_be_run_keeps_its_verdict(models, ported, tmp_path):
    def lose(state):
        del state["transformer.h.1.mlp.proj.weight"]

    found = porter.verify(
        models.path("gemma3"), mutant(ported("gemma3"), tmp_path / "out", weights=lose), logits="float32"
    )
    assert not found.right and found.logits is None
    assert any("logits could not be compared" in note for note in found.notes)


# --- what is summed up range by range ------------------------------------------------------------------


def test_sums_are_those_of_the_whole_vocabulary():
    """The oracle is written out in NumPy; ranges of uneven length, the largest logits in the last."""
    draw = np.random.default_rng(5)
    a = draw.normal(size=(13, 103)) * 4
    b = a + draw.normal(size=a.shape)
    a[:, 90:] += 20
    b[:, 90:] += 20
    ids = draw.integers(0, 103, 13)
    sums = LogitSums(torch.tensor(ids), 5)
    for start, end in ((0, 40), (40, 41), (41, 103)):
        sums.add(start, torch.tensor(a[:, start:end]), torch.tensor(b[:, start:end]))
    log_p, log_q = (x - np.log(np.exp(x).sum(-1, keepdims=True)) for x in (a, b))
    assert np.allclose(sums.kl().numpy(), (np.exp(log_p) * (log_p - log_q)).sum(-1), rtol=1e-12)
    assert sums.max_abs == np.abs(a - b).max() and sums.max_logit == np.abs(a).max()
    orders = [np.argsort(-x, axis=-1) for x in (a, b)]
    shared = [len({*one[:5]} & {*two[:5]}) / 5 for one, two in zip(*orders, strict=True)]
    assert sums.agreement(5) == pytest.approx(np.mean(shared)) and 0 < sums.agreement(5) < 1
    assert sums.agreement(1) == np.mean(orders[0][:, 0] == orders[1][:, 0])
    expected = [-x[np.arange(12), ids[1:]].mean() for x in (log_p, log_q)]
    assert sums.losses() == pytest.approx(expected)


def test_a_logit_that_is_no_number_differs():
    sums = LogitSums(torch.arange(3), 2)
    sums.add(0, torch.zeros(3, 7), torch.full((3, 7), torch.nan))
    assert sums.max_abs == float("inf")


def test_the_page_is_long_enough_and_random_ids_have_a_seed(tmp_path):
    assert len(prose().split()) > 600
    first, again, other = (sample_ids({}, 50, 40, seed) for seed in (1, 1, 2))
    assert first.seed == 1 and first.tokenizer is None and int(first.ids.max()) < 50
    assert torch.equal(first.ids, again.ids) and not torch.equal(first.ids, other.ids)
    (tmp_path / "tokenizer.model").write_bytes(b"no model")
    broken = sample_ids({"tokenizer.model": tmp_path / "tokenizer.model"}, 50, 40, 1)
    assert torch.equal(broken.ids, first.ids)


# --- memory --------------------------------------------------------------------------------------------

# The program itself asks at each state that passes by, when one layer is in memory.
PROGRAM = """
import sys
import torch
import porter
from porter.verification import logits

def kilobytes(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(field))

peaks = {"RssAnon": 0, "RssFile": 0}
for owner in (logits._States, logits._Differences):
    for name in ("keep", "compare"):
        own = getattr(owner, name, None)
        if own is None:
            continue
        def watched(self, place, state, own=own):
            for field in peaks:
                peaks[field] = max(peaks[field], kilobytes(field))
            return own(self, place, state)
        setattr(owner, name, watched)
torch.set_num_threads(1)
import transformers, litgpt.model
transformers.AutoModelForCausalLM
import transformers.models.llama.modeling_llama
before = {field: kilobytes(field) for field in peaks}
found = porter.compare_logits(sys.argv[1], sys.argv[2], tokens=20)
assert found.agree, found
print(*(peaks[field] - before[field] for field in peaks))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux how much memory is in use")
def test_one_layer_is_in_memory_at_a_time(tmp_path):
    from transformers import AutoModelForCausalLM, LlamaConfig

    config = LlamaConfig(
        vocab_size=300,
        hidden_size=512,
        intermediate_size=3000,
        num_hidden_layers=16,
        num_attention_heads=8,
        num_key_value_heads=2,
        head_dim=64,
    )
    model = AutoModelForCausalLM.from_config(config).to(torch.bfloat16)
    model.save_pretrained(tmp_path / "hf")
    porter.convert(tmp_path / "hf", tmp_path / "lit", to="litgpt")
    total = sum(p.numel() for p in model.parameters()) * 4 / 1024
    layer = sum(p.numel() for p in model.model.layers[0].parameters()) * 4 / 1024
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "hf"), str(tmp_path / "lit")],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    anonymous, mapped = map(int, done.stdout.split())
    # 21 MB a layer and 340 MB in all, in float32; libraries take some tens of MB while they run.
    assert total > 15 * layer
    assert anonymous < 2 * layer + 60_000 < total / 2
    assert mapped < layer + 60_000
