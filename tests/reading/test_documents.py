"""JSON and YAML within limits: what is refused, what is read, and in which time."""

import json
import math
import time
from itertools import pairwise

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from porter.errors import MalformedError, UnforeseenError
from porter.reading.json_text import CONFIG, MAX_TEXT, TOKENIZER, Limit, parse_json
from porter.reading.unforeseen import reading
from porter.reading.yaml_text import MAX_BYTES, parse_yaml

SMALL = Limit(1 << 20, 1_000, 8)

REFUSED = {
    "too many bytes": (b'"' + b"x" * (1 << 20) + b'"', "at most 1,048,576 bytes"),
    "too many values": (b"[" + b"1," * 1_000 + b"1]", "at most 1,000 values"),
    "too many lists": (b"[" * 1_001, "at most 1,000 values"),
    "too deep": (b"[" * 9 + b"]" * 9, "at most 8 levels"),
    "too deep behind a text of brackets": (b'["]]]]]]]]", ' + b"[" * 8 + b"]" * 8 + b"]", "at most 8 levels"),
    "a number of 65 digits": (b"[" + b"9" * 65 + b"]", "at most 64 digits"),
    "a number of 5,000 digits": (b"[-" + b"9" * 5_000 + b"]", "at most 64 digits"),
    "no UTF-8": (b'"\xff"', "expected UTF-8"),
    "no JSON": (b"{", "plain JSON"),
    "two documents": (b"{} {}", "plain JSON"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_json_beyond_its_limit_is_refused(name):
    text, why = REFUSED[name]
    with pytest.raises(MalformedError, match=r"config\.json cannot be parsed") as refused:
        parse_json(text, "config.json", SMALL)
    assert why in refused.value.cause
    assert not isinstance(refused.value, UnforeseenError)


def test_json_at_its_limit_is_read():
    assert parse_json(b"[" * 8 + b"]" * 8, "c", SMALL) == [[[[[[[[]]]]]]]]
    assert parse_json(b"[" + b"9" * 64 + b"]", "c", SMALL) == [int("9" * 64)]
    assert parse_json(json.dumps("[" * 500).encode(), "c", SMALL) == "[" * 500
    assert parse_json(b'{"a": NaN, "a": Infinity}', "c", SMALL) == {"a": math.inf}
    # Long numbers in a text are no numbers.
    assert parse_json(b'["' + b"9" * 65 + b'", 3]', "c", SMALL) == ["9" * 65, 3]


def test_a_text_of_megabytes_is_refused_unparsed():
    long = b'{"a": ["b", "' + b"x" * (MAX_TEXT - 20) + b'"]}'
    assert len(parse_json(long, "tokenizer.json", TOKENIZER)["a"][1]) == MAX_TEXT - 20
    for longer in (b'{"a": ["b", "' + b"x" * 30_000_000 + b'"]}', b'"b", ' + b" " * 30_000_000 + b"{}"):
        began = time.process_time()
        with pytest.raises(MalformedError, match="cannot be parsed") as refused:
            parse_json(longer, "tokenizer.json", TOKENIZER)
        assert "no text of more than 5,242,880 bytes" in refused.value.cause
        assert time.process_time() - began < 0.5


def test_what_a_caller_forbids():
    with pytest.raises(MalformedError, match="twice"):
        parse_json(b'{"a": 1, "b": {"c": 1, "c": 2}}', "c", SMALL, unique=True)
    with pytest.raises(MalformedError, match="NaN"):
        parse_json(b"[NaN]", "c", SMALL, constants=False)
    for half in (b'["\\ud800"]', b'{"\\udfff": 1}', b'["\\udc00\\ud800"]'):
        with pytest.raises(MalformedError, match="surrogate"):
            parse_json(half, "c", SMALL, surrogates=False)
    assert parse_json(b'["\\ud83d\\ude00"]', "c", SMALL, surrogates=False) == ["\U0001f600"]


def test_forty_thousand_keys_that_stand_twice_take_no_time():
    text = json.dumps({f"token{n}": n for n in range(40_000)})
    twice = (text[:-1] + ', "token39999": 1}').encode()
    began = time.process_time()
    with pytest.raises(MalformedError, match="'token39999' twice"):
        parse_json(twice, "tokenizer.json", TOKENIZER, unique=True)
    assert time.process_time() - began < 1


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(json_values)
def test_what_json_writes_is_read_alike(value):
    text = json.dumps(value).encode()
    assert parse_json(text, "c", CONFIG) == json.loads(text)


BEYOND_JSON = {
    "an alias": b"a: &x [1]\nb: *x\n",
    "an anchor alone": b"a: &x 1\n",
    "a bomb": b"a: &a [x]\n"
    + b"".join(b"%c: &%c [*%c,*%c]\n" % (b, b, a, a) for a, b in pairwise(b"abcdefghi")),
    "a tag": b"a: !!python/object/apply:os.system [x]\n",
    "a tag on a text": b"a: !!str 1\n",
    "a tag without a name": b"a: !\n",
    "a tag without a name on a number": b"a: ! 3\n",
    "base 60": b"a: 1:30\n",
    "a long number of base 60": b"a: " + b"1:" * 100_000 + b"1\n",
    "an octal number": b"a: 010\n",
    "a hexadecimal number": b"a: 0x1F\n",
    "a long hexadecimal number": b"a: 0x" + b"f" * 10_000 + b"\n",
    "a binary number": b"a: 0b101\n",
    "underscores": b"a: 1_000\n",
    "yes": b"a: yes\n",
    "off": b"a: off\n",
    "a date": b"a: 2024-01-02\n",
    "a merge": b"a:\n  <<: {b: 1}\n",
    "an infinity": b"a: .inf\n",
    "two documents": b"a: 1\n---\nb: 2\n",
    "too deep": b"a: " + b"[" * 50 + b"]" * 50 + b"\n",
    "too many values": b"a: [" + b"1," * 30_000 + b"1]\n",
    "too many bytes": b"a: " + b"x" * MAX_BYTES + b"\n",
    "a long number": b"a: " + b"9" * 5_000 + b"\n",
    # Such are read in Python alone, which takes its time.
    "tabs in a long text": b"a:\t1\n" + b"b: 1\n" * 7_000,
    "a long block": b"a: |\n" + b"  b\n" * 10_000,
    "a mapping as a key": b"? {a: 1}\n: 2\n",
    "no YAML": b"a: [\n",
    "no UTF-8": b"a: \xff\n",
}


@pytest.mark.parametrize("name", BEYOND_JSON)
def test_yaml_beyond_jsons_values_is_refused(name):
    began = time.process_time()
    with pytest.raises(MalformedError, match="cannot be parsed") as refused:
        parse_yaml(BEYOND_JSON[name], "model_config.yaml")
    assert time.process_time() - began < 1
    assert len(str(refused.value)) < 500
    assert not isinstance(refused.value, UnforeseenError)


PLAIN = b"""# a comment
name: gemma-2b
"quoted": 'yes'
number: -12
zero: 0
eps: 1.0e-05
tiny: 1e-05
half: .5
null: ~
empty:
truth: True
other: false
block: [1, {a: b, c: [x, 2.5]}, "1:30"]
long: >
  two
  lines
nested:
  deeper: {}
  list:
  - 1
  - a b
"""


def test_plain_yaml_is_read_as_pyyaml_reads_it():
    assert parse_yaml(PLAIN, "c") == yaml.safe_load(PLAIN)
    assert parse_yaml(b"", "c") is None


# Of tabs and of blocks PyYAML's two parsers do not take the same ones.
UNLIKE = (
    *(b">#", b"a: >#\n  b\n", b"a: |#x\n  b\n", b"a: > # x\n  b\n", b"a: |2-\n    b\n"),
    *(b"a:\t1\n", b"a: 1\t\n", b"\ta: 1\n", b"a:\n\tb: 1\n", b"a: [1,\t2]\n", b"a:\n  b: 1\n\tc: 2\n"),
    *(b'a: "x\ty"\n', b"a: x\ty\n", b"# x\ty\na: 1\n", b"a: 'x\t'\n", b"a: |\n  x\ty\n", b"a: 1 #\tx\n"),
)


def test_tabs_and_blocks_are_read_as_pyyaml_reads_them_or_refused():
    read = 0
    for text in UNLIKE:
        try:
            wanted = yaml.safe_load(text)
        except yaml.YAMLError:
            with pytest.raises(MalformedError):
                parse_yaml(text, "c")
            continue
        read += 1
        assert parse_yaml(text, "c") == wanted
    assert 2 <= read < len(UNLIKE)


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), json_values, max_size=5))
def test_what_pyyaml_writes_is_read_alike_or_refused(value):
    text = yaml.safe_dump(value, allow_unicode=True).encode("utf-8", "surrogatepass")
    try:
        found = parse_yaml(text, "c")
    except MalformedError:
        # Infinities, anchors of values that stand twice, texts that need escapes.
        return
    assert found == yaml.safe_load(text)


@pytest.mark.parametrize(
    "error", [ValueError("x"), TypeError("x"), RecursionError("x"), OverflowError("x"), KeyError("x")]
)
def test_the_last_net_names_the_input_and_says_that_it_is_porters_fault(error):
    with pytest.raises(UnforeseenError, match=r"model\.gguf cannot be read") as caught, reading("model.gguf"):
        raise error
    assert caught.value.exit_code == 6
    assert type(error).__name__ in caught.value.cause


def test_the_net_lets_errors_of_porters_own_through():
    with pytest.raises(MalformedError, match="mine") as caught, reading("model.gguf"):
        raise MalformedError("mine")
    assert not isinstance(caught.value, UnforeseenError)
    with pytest.raises(MalformedError, match="memory") as caught, reading("model.gguf"):
        raise MemoryError
    assert not isinstance(caught.value, UnforeseenError)
    with pytest.raises(KeyboardInterrupt), reading("model.gguf"):
        raise KeyboardInterrupt
