"""Tokenizers between KerasHub's presets and the others: the same model, and the same ids in KerasHub."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

import porter
from tests.peers.test_gemma3n_gemma4 import build

pytestmark = pytest.mark.peer

TEXT = "the quick brown fox jumped over two lazy dogs"


@pytest.fixture(scope="module")
def model() -> bytes:
    """A SentencePiece model of 60 pieces with Gemma's special tokens."""
    import sentencepiece

    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([TEXT] * 9), model_writer=written, vocab_size=60, model_type="BPE",
        pad_id=0, eos_id=1, bos_id=2, unk_id=3, pad_piece="<pad>", eos_piece="<eos>", bos_piece="<bos>",
        unk_piece="<unk>", hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    return written.getvalue()


@pytest.mark.parametrize("family", ["gemma", "gemma2", "gemma3"])
def test_kerashub_makes_a_causal_model_of_what_porter_wrote(presets, model, tmp_path, monkeypatch, family):
    import keras_hub
    import sentencepiece

    # Only for images does Gemma 3's preprocessor need TensorFlow, but it asks for it in any case.
    preprocessing = "keras_hub.src.models.gemma3.gemma3_causal_lm_preprocessor"
    monkeypatch.setattr(f"{preprocessing}.assert_tf_installed", lambda name: None)

    name = {"gemma": "gemma-gqa"}.get(family, family)
    porter.convert(presets.path(name), tmp_path / "hf", to="hf")
    (tmp_path / "hf" / "tokenizer.model").write_bytes(model)
    porter.convert(tmp_path / "hf", tmp_path / "out", to="keras")
    assert (tmp_path / "out" / "assets" / "tokenizer" / "vocabulary.spm").read_bytes() == model
    causal = keras_hub.models.CausalLM.from_preset(str(tmp_path / "out"))
    wanted = sentencepiece.SentencePieceProcessor(model_proto=model).encode(TEXT)
    assert list(causal.preprocessor.tokenizer(TEXT)) == wanted


def test_a_preset_of_kerashub_gives_its_model_to_all(presets, model, tmp_path):
    import keras_hub

    preset = tmp_path / "preset"
    presets.build("gemma-gqa").save_to_preset(str(preset))
    keras_hub.models.GemmaTokenizer(proto=model).save_to_preset(str(preset))
    porter.convert(preset, tmp_path / "hf", to="hf")
    porter.convert(preset, tmp_path / "lit", to="litgpt")
    for out in ("hf", "lit"):
        assert (tmp_path / out / "tokenizer.model").read_bytes() == model
        assert json.loads((tmp_path / out / "tokenizer_config.json").read_text())["add_bos_token"] is True
    porter.convert(tmp_path / "lit", tmp_path / "back", to="keras")
    assert _config(tmp_path / "back") == _config(preset)


def test_a_source_without_a_sentencepiece_model_gives_a_note(presets, tmp_path):
    porter.convert(presets.path("gemma-gqa"), tmp_path / "hf", to="hf")
    notes = porter.plan(tmp_path / "hf", to="keras").notes
    assert any("KerasHub reads a SentencePiece model" in note for note in notes)


def _config(preset: Path) -> dict[str, object]:
    return json.loads((preset / "tokenizer.json").read_text())


@pytest.mark.parametrize("case", ["3n", "4 dense"])
def test_gemma_3n_and_4_get_tokenizers_of_their_own(case, tmp_path):
    import keras_hub
    import sentencepiece

    # What KerasHub's Gemma 3n looks for besides <bos>, <eos> and <pad>.
    further = [f"<{edge}_of_{part}>" for edge in ("start", "end") for part in ("image", "audio", "turn")]
    further += ["<image_soft_token>", "<audio_soft_token>", "<mask>", "[multimodal]"]
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([TEXT] * 9), model_writer=written, vocab_size=70, model_type="BPE",
        pad_id=0, eos_id=1, bos_id=2, unk_id=3, pad_piece="<pad>", eos_piece="<eos>", bos_piece="<bos>",
        unk_piece="<unk>", hard_vocab_limit=False, minloglevel=2, user_defined_symbols=further,
    )  # fmt: skip
    build(case).save_pretrained(tmp_path / "hf")
    (tmp_path / "hf" / "tokenizer.model").write_bytes(written.getvalue())
    porter.convert(tmp_path / "hf", tmp_path / "out", to="keras")
    tokenizer = keras_hub.models.Tokenizer.from_preset(str(tmp_path / "out"))
    assert type(tokenizer).__name__ == {"3n": "Gemma3nTokenizer"}.get(case, "Gemma4Tokenizer")
    wanted = sentencepiece.SentencePieceProcessor(model_proto=written.getvalue()).encode(TEXT)
    assert list(tokenizer(TEXT)) == wanted
