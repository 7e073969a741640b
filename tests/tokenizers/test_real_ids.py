"""The tokenizer made from the real Gemma's GGUF gives the ids that transformers gives for the GGUF itself."""

import dataclasses
import json

import pytest

from porter.tokenizers import tokenizer_files
from porter.tokenizers.spm_model import model_bytes
from porter.tokenizers.vocabulary import Kind, vocabulary

pytestmark = [pytest.mark.real, pytest.mark.peer]

ROWS = 262144


@pytest.fixture(scope="module")
def litgpt_dir(metadata, tmp_path_factory):
    return _written(
        tokenizer_files({}, metadata=metadata, target="litgpt", vocab_size=ROWS), tmp_path_factory
    )


@pytest.fixture(scope="module")
def hf_dir(metadata, tmp_path_factory):
    return _written(tokenizer_files({}, metadata=metadata, target="hf", vocab_size=ROWS), tmp_path_factory)


def _written(plan, factory):
    assert (plan.notes, plan.tokens) == ((), ROWS)
    folder = factory.mktemp("gemma-3-270m")
    for file in plan.files:
        (folder / file.name).write_bytes(file.content)
    return folder


def different(ids, wanted):
    return [index for index, (a, b) in enumerate(zip(ids, wanted, strict=True)) if a != b]


def test_litgpt_reads_the_same_ids(litgpt_dir, texts, peer):
    from litgpt.tokenizer import Tokenizer

    tokenizer = Tokenizer(litgpt_dir)
    assert (tokenizer.backend, tokenizer.bos_id, tokenizer.eos_id, tokenizer.use_bos) == (
        "sentencepiece",
        2,
        1,
        True,
    )
    ids = [tokenizer.encode(text).tolist() for text in texts]
    assert not [texts[index] for index in different(ids, peer["texts"])]
    assert len(texts) > 1300 and sum(map(len, ids)) > 30_000


def test_litgpt_decodes_what_it_encoded(litgpt_dir):
    from litgpt.tokenizer import Tokenizer

    tokenizer = Tokenizer(litgpt_dir)
    for text in (" a\n\n\tb  <b>c</b>   日本 😀", "<start_of_turn>user\nHi<end_of_turn>\n"):
        assert tokenizer.decode(tokenizer.encode(text, bos=False)) == text


def test_known_difference_literal_special_tokens(litgpt_dir, hf_dir, literal, peer):
    from litgpt.tokenizer import Tokenizer
    from transformers import AutoTokenizer

    tokenizer = Tokenizer(litgpt_dir)
    assert all(
        tokenizer.encode(text).tolist() != ids for text, ids in zip(literal, peer["literal"], strict=True)
    )
    tokenizer = AutoTokenizer.from_pretrained(hf_dir)
    assert [tokenizer.encode(text) for text in literal] == peer["literal"]


def test_transformers_reads_the_same_ids(hf_dir, texts, peer):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(hf_dir)
    assert type(tokenizer).__name__ == "GemmaTokenizer"
    assert not [texts[index] for index in different([tokenizer.encode(t) for t in texts], peer["texts"])]
    shown = [tokenizer.decode(ids, skip_special_tokens=True) for ids in peer["texts"]]
    assert shown == peer["shown"]
    assert (len(tokenizer), sorted(tokenizer.all_special_ids)) == (ROWS, peer["special"])
    assert tokenizer.model_max_length == 32768


def test_transformers_reads_the_same_ids_from_the_litgpt_directory(litgpt_dir, texts, peer):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(litgpt_dir)
    assert not different([tokenizer.encode(text) for text in texts], peer["texts"])
    assert [tokenizer.decode(ids, skip_special_tokens=True) for ids in peer["texts"]] == peer["shown"]


def test_tokenizer_json_is_the_one_that_transformers_builds(hf_dir, peer):
    ours = json.loads((hf_dir / "tokenizer.json").read_text())
    assert len(ours["model"]["merges"]) == 514_906
    assert ours == peer["json"]


def test_negative_control_turn_markers_would_be_shown(litgpt_dir, tmp_path):
    """Why the config lists `added_tokens_decoder`: a model file alone does not say what is special."""
    from transformers import AutoTokenizer

    config = json.loads((litgpt_dir / "tokenizer_config.json").read_text())
    del config["added_tokens_decoder"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "tokenizer.model").write_bytes((litgpt_dir / "tokenizer.model").read_bytes())
    shown = []
    for folder in (litgpt_dir, tmp_path):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        shown.append(tokenizer.decode(tokenizer.encode("a<end_of_turn>\n"), skip_special_tokens=True))
    assert shown == ["a\n", "a<end_of_turn>\n"]


def _blanks_left(metadata, known):
    tokens, kinds = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    return dataclasses.replace(known, pieces=tuple(tokens), kinds=tuple(kinds))


def _scores_left(metadata, known):
    scores = metadata["tokenizer.ggml.scores"]
    runs = {index for index, token in enumerate(metadata["tokenizer.ggml.tokens"]) if not token.strip(" ")}
    return dataclasses.replace(
        known, scores=tuple(-float(i) if i in runs else score for i, score in enumerate(scores))
    )


def _blanks_user_defined(metadata, known):
    return dataclasses.replace(known, kinds=tuple(metadata["tokenizer.ggml.token_type"]))


CONTROLS = {
    "blanks left": _blanks_left,
    "blanks user-defined": _blanks_user_defined,
    "scores left": _scores_left,
}


@pytest.mark.parametrize("control", CONTROLS)
def test_negative_control_each_step_on_blanks_is_needed(control, metadata, texts, peer):
    ids = _encoded(model_bytes(CONTROLS[control](metadata, vocabulary(metadata))), texts)
    assert len(different(ids, [wanted[1:] for wanted in peer["texts"]])) > 5


def test_negative_control_control_pieces_would_split(metadata, texts, peer):
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto.FromString(model_bytes(vocabulary(metadata)))
    for index in (105, 106):
        model.pieces[index].type = Kind.CONTROL
    ids = _encoded(model.SerializeToString(), texts)
    wrong = different(ids, [wanted[1:] for wanted in peer["texts"]])
    assert wrong and all("_of_turn>" in texts[index] for index in wrong)


def _encoded(model, texts):
    from sentencepiece import SentencePieceProcessor

    processor = SentencePieceProcessor(model_proto=model)
    return [processor.encode(text) for text in texts]
