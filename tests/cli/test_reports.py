"""HTML reports in a real browser: what is shown, and that nothing from a checkpoint runs or is fetched."""

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from porter.cli.app import app
from porter.reporting.html_heat import Heat, heat_map
from porter.reporting.html_page import page, table

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
browser = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")

# Each would change the title, which the browser's DOM then shows.
RUN = "document.title = 'owned'"
HOSTILE = f"<script>{RUN}</script>"
ATTRIBUTE = f'"><img src=x onerror="{RUN}">\''

SHAPES = {
    "model.embed_tokens.weight": (7, 6),
    "model.layers.{n}.input_layernorm.weight": (6,),
    "model.layers.{n}.self_attn.q_proj.weight": (8, 6),
    "model.layers.{n}.self_attn.k_proj.weight": (4, 6),
    "model.layers.{n}.self_attn.v_proj.weight": (4, 6),
    "model.layers.{n}.self_attn.o_proj.weight": (6, 8),
    "model.layers.{n}.post_attention_layernorm.weight": (6,),
    "model.layers.{n}.mlp.gate_proj.weight": (11, 6),
    "model.layers.{n}.mlp.up_proj.weight": (11, 6),
    "model.layers.{n}.mlp.down_proj.weight": (6, 11),
    "model.norm.weight": (6,),
    "lm_head.weight": (7, 6),
}
CONFIG = {
    "model_type": "llama", "num_hidden_layers": 3, "hidden_size": 6, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 4, "intermediate_size": 11, "vocab_size": 7,
    "max_position_embeddings": 13, "hidden_act": "silu",
}  # fmt: skip


@pytest.fixture
def llama(tmp_path):
    """Three layers of a Llama; a directory, a config and a tensor with hostile names."""
    folder = tmp_path / f"llama {ATTRIBUTE.replace('/', '')}"
    folder.mkdir()
    weights = {
        name.format(n=layer): np.full(shape, layer, np.float32)
        for name, shape in SHAPES.items()
        for layer in range(3)
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CONFIG | {"_name_or_path": HOSTILE}), encoding="utf-8")
    return folder


def porter(*arguments):
    with pytest.raises(SystemExit) as done:
        app([str(argument) for argument in arguments])
    return done.value.code or 0


def dom(path):
    """The page as Chromium has it after its scripts have run."""
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000", "--dump-dom",
         path.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return done.stdout


class Elements(HTMLParser):
    """Every element of a page with its attributes."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def title(found):
    return html.unescape(re.search(r"<title>(.*?)</title>", found, re.DOTALL)[1])


def rows(found, name):
    """How many rows that search can hide stand in the part `name`."""
    part = re.search(rf'<div id="{name}">(.*?)</section>', found, re.DOTALL)[1]
    return len(re.findall(r"<details data-row", part))


@browser
def test_a_plan_in_a_browser(llama, tmp_path, capsys):
    report = tmp_path / "plan.html"
    assert porter("convert", llama, "--to", "litgpt", "--dry-run", "--report", report) == 0
    assert "hf → litgpt" in capsys.readouterr().out
    found = dom(report)
    assert title(found) == f"Plan for {llama.name}"
    # Its own script has run: the search is there.
    assert re.search(r'<input type="search"[^>]*data-table="moves"', found)
    assert not re.search(r"<input[^>]*\bhidden\b[^>]*>", found)
    # A row for each rule; q, k and v in one.
    assert rows(found, "moves") == 10
    assert (
        "model.layers.{0..2}.self_attn.q_proj.weight + model.layers.{0..2}.self_attn.k_proj.weight" in found
    )
    assert "transformer.h.2.attn.qkv.weight" in found and "transformer.h.{0..2}.attn.qkv.weight" in found
    assert (
        "rms_norm_eps" not in found and "num_key_value_heads = 1" in found and "n_query_groups = 1" in found
    )
    assert HOSTILE not in found and html.escape(HOSTILE, quote=False) in found
    assert "<img" not in found


@browser
def test_an_inspection_in_a_browser(llama, tmp_path):
    weights = {"model.layers.0." + HOSTILE: np.zeros((2, 3), np.float32), ATTRIBUTE: np.ones(2, np.float32)}
    save_file(weights, llama / "model.safetensors")
    (llama / "porter-receipt.json").write_text(json.dumps({"plan": HOSTILE, "files": {ATTRIBUTE: None}}))
    report = tmp_path / "found.html"
    assert porter("inspect", llama, "--report", report) == 0
    found = dom(report)
    assert title(found) == llama.name
    assert rows(found, "shapes") == 2
    assert found.count(html.escape(HOSTILE, quote=False)) >= 3
    assert "<img" not in found and HOSTILE not in found


@browser
def test_a_verdict_in_a_browser(llama, tmp_path):
    """A port with two wrong tensors, a hostile one besides, and another epsilon."""
    assert porter("convert", llama, "--to", "litgpt", "-o", tmp_path / "out") == 0
    path = tmp_path / "out" / "lit_model.safetensors"
    weights = load_file(path)
    for layer in (0, 2):
        weights[f"transformer.h.{layer}.mlp.proj.weight"][0, :3] += 1
    save_file(weights | {HOSTILE: np.zeros(2, np.float32)}, path)
    config = tmp_path / "out" / "model_config.yaml"
    config.write_text(config.read_text().replace("norm_eps: 1.0e-06", "norm_eps: 1.0e-03"))
    report = tmp_path / "verdict.html"
    assert porter("verify", llama, tmp_path / "out", "--report", report) == 3
    found = dom(report)
    assert title(found) == "porter verify: differs"
    heat = re.search(r'<table class="heat">(.*?)</table>', found, re.DOTALL)[1]
    # 1 where 0 and 2 should be.
    assert "transformer.h.*.mlp.proj.weight" in heat
    assert '<td class="h5">1.0 for 0</td>' in heat and '<td class="h5">5.0e-1</td>' in heat
    # Both configs stand side by side, what differs first.
    assert re.search(r'<tr data-row="" class="other"><td class="name">norm_eps</td><td>1e-06</td>', found)
    assert found.index("norm_eps</td><td>1e-06") < found.index("n_head</td><td>2")
    assert re.findall(r'<th scope="col">(\d+)</th>', heat) == ["0", "2"]
    assert "norm_eps" in found and "porter-receipt" not in found and "sha256:" in found
    assert HOSTILE not in found and html.escape(HOSTILE, quote=False) in found and "<img" not in found


@browser
def test_a_difference_in_a_browser(llama, tmp_path):
    """Two models by their names: one value in a layer, all of another's, a hostile tensor on one side."""
    other = tmp_path / "other"
    shutil.copytree(llama, other)
    weights = load_file(llama / "model.safetensors")
    q, down = "model.layers.1.self_attn.q_proj.weight", "model.layers.2.mlp.down_proj.weight"
    weights[q] = weights[q].copy()
    weights[q][2, 3] += np.float32(0.001)
    weights[down] = weights[down] * np.float32(3)
    save_file(weights | {HOSTILE: np.zeros(2, np.float32)}, other / "model.safetensors")
    report = tmp_path / "diff.html"
    assert porter("diff", llama, other, "--report", report) == 3
    found = dom(report)
    assert title(found) == "porter diff: differs"
    heat = re.search(r'<table class="heat">(.*?)</table>', found, re.DOTALL)[1]
    assert re.findall(r'<th scope="col">(\d+)</th>', heat) == ["1", "2"]
    # 0.001 of a norm of sqrt(48), and twice the whole.
    assert '<td class="h2">1.4e-4</td>' in heat and '<td class="h5">2.0</td>' in heat
    assert "[2, 3]" in found and "<img" not in found
    assert HOSTILE not in found and html.escape(HOSTILE, quote=False) in found


@browser
def test_even_a_name_that_is_not_escaped_runs_nothing(tmp_path):
    """The policy alone. Negative control: without it the same page is owned."""
    evil = page(
        "safe", [HOSTILE, f'<img src=x onerror="{RUN}">'], [("a", "A", table([["B"], ["c"]], name="d"))]
    )
    guarded, bare = tmp_path / "guarded.html", tmp_path / "bare.html"
    guarded.write_text(evil, encoding="utf-8")
    bare.write_text(re.sub(r"<meta http-equiv[^>]*>", "", evil), encoding="utf-8")
    assert title(dom(guarded)) == "safe"
    assert title(dom(bare)) == "owned"
    # Its own script and style are let in.
    assert not re.search(r"<input[^>]*\bhidden\b", dom(guarded))


def test_nothing_is_fetched_and_themes_follow_the_system(llama, tmp_path):
    report = tmp_path / "found.html"
    porter("inspect", llama, "--report", report)
    written = report.read_text(encoding="utf-8")
    assert "default-src 'none'" in written
    elements = Elements()
    elements.feed(written)
    assert {"table", "details", "input", "script"} <= {tag for tag, _ in elements.found}
    for tag, attributes in elements.found:
        assert not attributes.keys() & {"src", "srcset", "action", "style"}, tag
        assert attributes.get("href", "#").startswith("#"), tag
        assert not any(name.startswith("on") for name in attributes), tag
    assert "url(" not in written and "@import" not in written
    for needed in ("prefers-color-scheme: dark", "@media print", ":focus-visible", 'lang="en"'):
        assert needed in written


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("inspect", "SRC", "--report", "model.safetensors"), 2),
        (("inspect", "SRC", "--report", "no/where.html"), 2),
        (("inspect", "SRC", "--as", "litgpt", "--report", "a.html"), 2),
        (("convert", "SRC", "--to", "litgpt", "--report", "a.html"), 2),
        (("inspect", "SRC", "--report", "x" * 300 + ".html"), 6),
    ],
)
def test_what_no_report_is_made_of_is_refused(llama, tmp_path, monkeypatch, arguments, code):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(BaseException) as refused:
        app([str(llama) if argument == "SRC" else argument for argument in arguments])
    assert getattr(refused.value, "exit_code", getattr(refused.value, "code", None)) == code
    assert sorted(tmp_path.rglob("*")) == before


@browser
def test_the_keyboard_reaches_all_that_can_be_used(llama, tmp_path):
    """Tab stops at every link, field and fold, in the order of the page; `/` goes to the search."""
    report = tmp_path / "plan.html"
    assert porter("convert", llama, "--to", "litgpt", "--dry-run", "--report", report) == 0
    probe = """
    const able = [...document.querySelectorAll("a[href], input, summary, button, [tabindex]")];
    const reached = able.filter((one) => { one.focus(); return document.activeElement === one; });
    const first = document.querySelector("input[data-table]");
    document.activeElement.blur();
    document.dispatchEvent(new KeyboardEvent("keydown", { key: "/", bubbles: true, cancelable: true }));
    const found = document.activeElement === first;
    first.value = "mlp.proj"; first.dispatchEvent(new Event("input"));
    const shown = document.querySelectorAll("#moves > details:not([hidden])").length;
    const odd = document.querySelectorAll('[tabindex]:not([tabindex="0"])').length;
    document.title = JSON.stringify([able.length, reached.length, found, shown, odd,
      able.slice(0, 2).map((one) => one.tagName)]);
    """
    content = report.read_text(encoding="utf-8")
    content = re.sub(r"<meta http-equiv[^>]*>", "", content).replace(
        "</body>", f"<script>{probe}</script></body>"
    )
    (tmp_path / "probe.html").write_text(content, encoding="utf-8")
    able, reached, found, shown, odd, first = json.loads(title(dom(tmp_path / "probe.html")))
    assert able == reached > 10 and odd == 0 and first == ["A", "A"]
    assert found and shown == 1


def test_a_map_of_many_layers_is_as_wide_as_a_printed_page():
    """Paper does not scroll: layers stand in several parts, each with the names of its tensors."""
    deep = [Heat(f"h.{layer}.{name}", 1, "1e-4") for layer in range(42) for name in ("q", "norm")]
    made = heat_map([Heat("embed", 2, "1e-3"), *deep], "corner")
    parts = [re.findall(r'<th scope="col">(.*?)</th>', part) for part in made.split("<table")[1:]]
    assert max(map(len, parts)) <= 14 and all(part[0] == "corner" for part in parts)
    layers = [column for part in parts for column in part[1:]]
    assert layers == ["no layer", *map(str, range(42))]
    for part in made.split("<table")[1:]:
        rows = re.findall(r"<code>(.*?)</code>", part)
        assert [row for row in rows if row != "embed"] == ["h.*.q", "h.*.norm"]
    assert made.count("embed") == 1 and made.count("1e-4") == 84
    assert heat_map(deep[:26], "corner").count("<table") == 1
