"""Tokenizer files between Hugging Face and LitGPT: what is copied, what is completed, what is refused."""

import json
import os

import pytest

from porter.errors import MalformedError, PorterError, UnsupportedError, UsageError
from porter.tokenizers import TokenizerFile, TokenizerPlan, tokenizer_files
from porter.tokenizers.bos import with_bos
from porter.tokenizers.tokenizer_values import read_object


def tokenizer_json(before=None, after=None, *, tokens=7, added=()):
    """A tokenizer.json of `tokens` pieces whose template puts special tokens around a text."""
    pieces = [{"Sequence": {"id": "A", "type_id": 0}}]
    if before:
        pieces.insert(0, {"SpecialToken": {"id": before, "type_id": 0}})
    if after:
        pieces.append({"SpecialToken": {"id": after, "type_id": 0}})
    return {
        "model": {"type": "BPE", "vocab": {f"t{n}": n for n in range(tokens)}, "merges": []},
        "post_processor": {"type": "TemplateProcessing", "single": pieces, "pair": []},
        "added_tokens": [{"id": index, "content": text} for index, text in added],
    }


@pytest.fixture
def source(tmp_path):
    def make(**files):
        available = {}
        for stem, value in files.items():
            name = stem.replace("__", ".")
            path = tmp_path / name
            path.write_text(value if isinstance(value, str) else json.dumps(value))
            available[name] = path
        return available

    return make


def plan(available, target="litgpt", rows=7, metadata=None) -> TokenizerPlan:
    return tokenizer_files(available, metadata=metadata, target=target, vocab_size=rows)


def config_of(result: TokenizerPlan) -> dict:
    (file,) = (file for file in result.files if file.name == "tokenizer_config.json")
    return json.loads(file.content)


CLASS_DEFAULT = {"post_processor": None}

# config, tokenizer.json, and what must be true of the config that LitGPT reads; absent means "not written".
BOS = {
    "the template adds it": ({"tokenizer_class": "GemmaTokenizer"}, tokenizer_json("<bos>"), True),
    "the template does not": ({"tokenizer_class": "GPTNeoXTokenizer"}, tokenizer_json(), None),
    "a Llama that does not": ({"tokenizer_class": "LlamaTokenizer"}, tokenizer_json(), False),
    "a Llama that does": ({"tokenizer_class": "LlamaTokenizer"}, tokenizer_json("<s>"), None),
    "another token comes first": (
        {"tokenizer_class": "X", "bos_token": "<s>"},
        tokenizer_json("[CLS]", "[SEP]"),
        None,
    ),
    "stated beats the template": (
        {"tokenizer_class": "X", "add_bos_token": False},
        tokenizer_json("<bos>"),
        False,
    ),
    "null is not stated": ({"tokenizer_class": "X", "add_bos_token": None}, tokenizer_json("<bos>"), True),
    "Gemma by class": ({"tokenizer_class": "GemmaTokenizerFast"}, None, True),
    "Llama by class": ({"tokenizer_class": "LlamaTokenizerFast"}, CLASS_DEFAULT, True),
    "another by class": ({"tokenizer_class": "T5Tokenizer"}, None, None),
    "inside a sequence": (
        {"tokenizer_class": "PreTrainedTokenizerFast"},
        {
            "post_processor": {
                "type": "Sequence",
                "processors": [{"type": "ByteLevel"}, tokenizer_json("<|begin|>")["post_processor"]],
            }
        },
        True,
    ),
    "bytes only": ({"tokenizer_class": "LlamaTokenizer"}, {"post_processor": {"type": "ByteLevel"}}, False),
}


@pytest.mark.parametrize("case", BOS)
def test_bos_is_said_where_litgpt_would_guess_wrong(case):
    config, tokenizer, wanted = BOS[case]
    told = with_bos(config, tokenizer)
    assert told.get("add_bos_token") is wanted
    # What LitGPT then does is what the source does.
    adds = told["add_bos_token"] if "add_bos_token" in told else told["tokenizer_class"] == "LlamaTokenizer"
    assert adds is (wanted if wanted is not None else case == "a Llama that does")
    assert {key: told[key] for key in config if config[key] is not None} == {
        key: value for key, value in config.items() if value is not None
    }


def test_the_bos_token_is_named_when_only_the_template_names_it():
    assert with_bos({"tokenizer_class": "X"}, tokenizer_json("<bos>"))["bos_token"] == "<bos>"
    named = {"tokenizer_class": "X", "bos_token": {"content": "<bos>"}}
    assert with_bos(named, tokenizer_json("<bos>"))["bos_token"] == {"content": "<bos>"}


def test_a_template_with_eos_keeps_it_when_bos_is_made_explicit():
    told = with_bos({"tokenizer_class": "X"}, tokenizer_json("<bos>", "<eos>"))
    assert (told["add_bos_token"], told["add_eos_token"]) == (True, True)


def test_everything_is_copied_and_only_the_config_is_completed(source):
    available = source(
        tokenizer__json=tokenizer_json("<bos>"),
        tokenizer_config__json={"tokenizer_class": "GemmaTokenizer", "chat_template": "…", "odd": [1, None]},
        generation_config__json={"eos_token_id": [1, 106]},
        chat_template__jinja="{{ messages }}",
        special_tokens_map__json={"bos_token": "<bos>"},
        added_tokens__json={},
    )
    result = plan(available)
    assert {file.name: file.copied_from for file in result.files} == {
        name: None if name == "tokenizer_config.json" else name for name in available
    }
    assert config_of(result) == {
        "tokenizer_class": "GemmaTokenizer",
        "chat_template": "…",
        "odd": [1, None],
        "add_bos_token": True,
        "bos_token": "<bos>",
    }
    assert (result.notes, result.tokens) == ((), 7)


@pytest.mark.parametrize("target", ["hf", "litgpt"])
def test_a_complete_config_is_copied_as_it_is(source, target):
    config = {"tokenizer_class": "X", "add_bos_token": True, "bos_token": "<bos>"}
    result = plan(source(tokenizer__json=tokenizer_json("<bos>"), tokenizer_config__json=config), target)
    assert TokenizerFile("tokenizer_config.json", None, "tokenizer_config.json") in result.files


def test_nothing_is_changed_on_the_way_to_hugging_face(source):
    result = plan(source(tokenizer__json=tokenizer_json("<s>"), tokenizer_config__json={"a": 1}), "hf")
    assert all(file.content is None for file in result.files) and len(result.files) == 2


@pytest.mark.parametrize("config", [None, {"bos_token": "<bos>"}])
def test_a_missing_class_is_written_for_litgpt_and_noted(source, config):
    files = {"tokenizer__json": tokenizer_json("<bos>")}
    if config is not None:
        files["tokenizer_config__json"] = config
    result = plan(source(**files))
    assert config_of(result)["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert "tokenizer_class" in result.notes[0]


def test_vocab_and_merges_alone_are_carried_with_a_note(source):
    result = plan(source(vocab__json={"a": 0}, merges__txt="#version"))
    assert [file.name for file in result.files] == ["vocab.json", "merges.txt"]
    assert "neither" in result.notes[0] and result.tokens is None


def test_custom_code_is_kept_noted_and_not_run(source):
    config = {"tokenizer_class": "X", "auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}}
    result = plan(source(tokenizer__json=tokenizer_json(), tokenizer_config__json=config))
    assert any("does not run" in note for note in result.notes)
    assert [file.copied_from for file in result.files] == ["tokenizer.json", "tokenizer_config.json"]


def test_a_tokenizer_that_adds_eos_is_noted_for_litgpt(source):
    config = {"tokenizer_class": "X", "add_bos_token": True, "bos_token": "<s>", "add_eos_token": True}
    available = source(tokenizer__json=tokenizer_json("<s>"), tokenizer_config__json=config)
    assert any("EOS" in note for note in plan(available).notes)
    assert not plan(available, "hf").notes


@pytest.mark.parametrize("metadata", [None, {}, {"general.architecture": "gemma"}])
def test_no_tokenizer_is_a_note_and_no_error(metadata):
    result = plan({}, metadata=metadata)
    assert (result.files, result.tokens) == ((), None)
    assert "no tokenizer" in result.notes[0]


def test_generation_config_arrives_without_a_tokenizer(source):
    result = plan(source(generation_config__json={"eos_token_id": 1}))
    assert [file.copied_from for file in result.files] == ["generation_config.json"]


def test_files_beside_a_gguf_come_before_its_metadata(source):
    available = source(
        tokenizer__json=tokenizer_json(), tokenizer_config__json={"tokenizer_class": "GPT2Tokenizer"}
    )
    result = plan(available, metadata={"tokenizer.ggml.model": "gpt2"})
    assert "beside the GGUF" in result.notes[0] and len(result.files) == 2
    with pytest.raises(UnsupportedError, match=r"'gpt2'(.|\n)*hint: .*tokenizer\.json"):
        plan({}, metadata={"tokenizer.ggml.model": "gpt2"})


def test_more_tokens_than_rows_is_an_error(source):
    available = source(
        tokenizer__json=tokenizer_json(tokens=8), tokenizer_config__json={"tokenizer_class": "X"}
    )
    with pytest.raises(MalformedError, match=r"at most 7 tokens, found 8"):
        plan(available)
    assert plan(available, rows=8).notes == ()


def test_fewer_tokens_than_rows_is_a_note(source):
    available = source(tokenizer__json=tokenizer_json(), tokenizer_config__json={"tokenizer_class": "X"})
    assert plan(available, rows=64).notes == ("57 of 64 embedding rows have no token (padding)",)


@pytest.mark.parametrize("rows", [7, 8])
def test_an_added_token_without_a_row_is_a_note(source, rows):
    """As in the text-only Gemma 3 models, whose `<image_soft_token>` is one past the embedding."""
    added = [(7, "<image_soft_token>")]
    available = source(
        tokenizer__json=tokenizer_json(added=added), tokenizer_config__json={"tokenizer_class": "X"}
    )
    result = plan(available, rows=rows)
    assert result.tokens == 8
    assert [("'<image_soft_token>' (7)" in note) for note in result.notes] == [True][: 8 - rows]


def test_a_unigram_vocabulary_is_counted(source):
    value = {"model": {"type": "Unigram", "vocab": [["a", 0.0], ["b", -1.0], ["c", -2.0]]}}
    available = source(tokenizer__json=value, tokenizer_config__json={"tokenizer_class": "X"})
    assert plan(available, rows=3).tokens == 3


BROKEN = {
    "truncated": '{"a": ',
    "a list": "[]",
    "a key twice": '{"a": 1, "a": 2}',
    "NaN": '{"a": NaN}',
    "deep": "[" * 100_000,
    "trailing comma": '{"a": 1,}',
}


@pytest.mark.parametrize("name", ["tokenizer__json", "tokenizer_config__json", "generation_config__json"])
@pytest.mark.parametrize("case", BROKEN)
def test_broken_json_is_refused_by_name(source, name, case):
    files = {"tokenizer__json": tokenizer_json(), "tokenizer_config__json": {"tokenizer_class": "X"}}
    with pytest.raises(MalformedError, match=name.replace("__", r"\.")):
        plan(source(**(files | {name: BROKEN[case]})))


def test_bytes_that_are_no_text_are_refused(source):
    available = source(tokenizer__json=tokenizer_json())
    available["tokenizer.json"].write_bytes(b'{"a": "\xff"}')
    with pytest.raises(MalformedError, match=r"tokenizer\.json"):
        plan(available)


@pytest.mark.parametrize(
    "value",
    [
        {"model": {}},
        {"model": {"vocab": {"a": "0"}}},
        {"model": {"vocab": {"a": -1}}},
        {"model": {"vocab": {}}, "added_tokens": [3]},
        {"model": {"vocab": {}}, "added_tokens": [{"content": "a"}]},
    ],
)
def test_a_tokenizer_json_of_another_shape_is_refused(source, value):
    with pytest.raises(MalformedError, match=r"tokenizer\.json"):
        plan(source(tokenizer__json=value))


@pytest.mark.parametrize("config", [{"tokenizer_class": 3}, {"tokenizer_class": "X", "add_bos_token": "yes"}])
def test_settings_of_the_wrong_type_are_refused(source, config):
    with pytest.raises(MalformedError, match=r"tokenizer_config\.json"):
        plan(source(tokenizer__json=tokenizer_json(), tokenizer_config__json=config))


def test_a_model_that_is_no_sentencepiece_is_refused(source):
    with pytest.raises(MalformedError, match=r"tokenizer\.model"):
        plan(source(tokenizer__model="IQ== 0\nIg== 1\n"))


def test_an_unknown_target_is_a_usage_error():
    with pytest.raises(UsageError):
        plan({}, "keras")


def test_lone_surrogates_survive(source):
    available = source(
        tokenizer__json=tokenizer_json("<bos>"),
        tokenizer_config__json='{"tokenizer_class": "X", "odd": "\\ud800 é"}',
    )
    assert config_of(plan(available))["odd"] == "\ud800 é"


def test_errors_are_porters(source):
    for value in ("", "null", "3", '"x"'):
        with pytest.raises(PorterError):
            plan(source(tokenizer__json=value))


def test_a_file_that_is_only_copied_has_a_limit_too(source):
    """Nothing of it is read before: a sparse file would fill the disk."""
    available = source(tokenizer__json=tokenizer_json(), merges__txt="", chat_template__jinja="")
    assert len(plan(available).files) >= 3
    with available["merges.txt"].open("wb") as stream:
        stream.truncate(20 << 30)
    with pytest.raises(MalformedError, match=r"merges\.txt is too large"):
        plan(available)
    available["merges.txt"].write_text("")
    available["chat_template.jinja"].unlink()
    os.mkfifo(available["chat_template.jinja"])
    with pytest.raises(MalformedError, match=r"chat_template\.jinja is no regular file"):
        plan(available)


SPELLINGS = [
    '["a b", "c \\" d"]',
    '[["a", "b"], ["]", "\\u00e9\\\\"]]',
    '[ ["a" ,\t"b" ]\n, ["[[", ","] ]',
    '["a b", ["c", "d"]]',
]


@pytest.mark.parametrize("merges", SPELLINGS)
def test_merges_are_checked_and_left_out(merges, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(
        f'{{"model": {{"vocab": {{"a": 0}}, "merges" : {merges}, "x": 1}}, "after": "\\"merges"}}'
    )
    whole = json.loads(path.read_text())
    assert whole["model"].pop("merges")
    read = read_object(path, path.name)
    assert read["model"].pop("merges") == [] and read == whole


@pytest.mark.parametrize(
    "merges",
    [
        '["a b",]',
        '["a b" "c"]',
        '[["a", "b"]',
        '["a\\x"]',
        '["a\nb"]',
        '["a", {"k": 1, "k": 2}]',
        '["a", NaN]',
        '["\\ud80"]',
    ],
)
def test_merges_that_are_no_json_are_refused(merges, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(f'{{"model": {{"vocab": {{"a": 0}}, "merges": {merges}}}}}')
    with pytest.raises(MalformedError, match=r"tokenizer\.json cannot be parsed"):
        read_object(path, path.name)


def test_an_error_behind_the_merges_is_placed_where_it_stands(tmp_path):
    path = tmp_path / "tokenizer.json"
    text = '{"model": {"vocab": {"a": 0}, "merges": ["a b", "c d"]}} x'
    path.write_text(text)
    with pytest.raises(MalformedError) as caught:
        read_object(path, path.name)
    assert f"(char {text.index('x')})" in str(caught.value.cause)


def test_ids_that_no_token_has_are_counted_wherever_they_are(source):
    added = [{"id": 9, "content": "<extra>"}]
    text = tokenizer_json()
    text["added_tokens"] = added
    (available := source(tokenizer__json="{}"))["tokenizer.json"].write_text(json.dumps(text))
    assert "7 of 14 embedding rows have no token (padding)" not in plan(available, rows=14).notes
    assert "6 of 14 embedding rows have no token (padding)" in plan(available, rows=14).notes


def test_merges_that_are_no_utf8_are_refused(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(b'{"model": {"merges": ["a \xff"]}}')
    with pytest.raises(MalformedError) as caught:
        read_object(path, path.name)
    assert "expected UTF-8, found byte 0xff" in str(caught.value.cause)
