"""What Python shows of a result: a line of its own, a few by `print`, a table in a notebook."""

from __future__ import annotations

import gc
import html.parser
import warnings
from pathlib import Path
from typing import Any

import pytest

import porter
from porter.facts import Facts

pytestmark = pytest.mark.peer


class _Tables(html.parser.HTMLParser):
    """The cells of every row."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        self.rows[-1][-1] += data


def test_results_are_shown_briefly(tiny_gemma: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = porter.convert(tiny_gemma, out, to="litgpt")
    results = [
        porter.inspect(tiny_gemma),
        porter.plan(tiny_gemma, to="litgpt"),
        done,
        porter.verify(tiny_gemma, out),
        porter.check(out),
        porter.fingerprint(out),
        porter.diff(tiny_gemma, out),
    ]
    for result in results:
        assert isinstance(result, Facts)
        line = repr(result)
        assert line.startswith(f"<{type(result).__name__} ")
        assert len(line) < 300
        assert "\n" not in line
        assert 2 <= len(str(result).splitlines()) < 20
        tables = _Tables()
        tables.feed(result._repr_html_())
        assert all(len(row) == 2 for row in tables.rows[:2])
    assert "29 tensors" in repr(results[0])
    assert "24 tensors" in str(results[3])
    assert repr(porter.load_state_dict(out)).count("\n") == 0


def test_a_notebook_shows_every_tensor(tiny_gemma: Path) -> None:
    found = porter.inspect(tiny_gemma)
    tables = _Tables()
    tables.feed(found._repr_html_())
    at = tables.rows.index(["Tensor", "Shape", "Dtype", "Params"])
    assert [row[0] for row in tables.rows[at + 1 :]] == [tensor.name for tensor in found.tensors]
    norm = next(row for row in tables.rows if row[0] == "model.norm.weight")
    assert norm[1:] == ["[66]", "F32", "66"]


def test_names_out_of_files_are_no_html() -> None:
    class Odd(Facts):
        def _facts(self) -> list[tuple[str, str]]:
            return [("model", "<script>x</script>"), ("\x1b[31m", "a\nb")]

    shown = Odd()._repr_html_()
    assert "<script" not in shown
    assert "\x1b" not in shown + repr(Odd()) + str(Odd())
    assert len(str(Odd()).splitlines()) == 2


@pytest.mark.parametrize("device", ["foo", "cuda:99", 3.5])
def test_a_device_that_there_is_not(tiny_gemma: Path, device: Any) -> None:
    with pytest.raises(porter.PorterError) as refused:
        porter.load_state_dict(tiny_gemma, device=device)
    assert "device=" in str(refused.value)
    assert refused.value.exit_code == 2


def test_a_plan_for_keras_leaves_no_file_open(tiny_gemma: Path, tmp_path: Path) -> None:
    porter.convert(tiny_gemma, tmp_path / "lit", to="litgpt")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always", ResourceWarning)
        porter.plan(tiny_gemma, to="keras")
        porter.plan(tmp_path / "lit", to="keras", dtype="bfloat16")
        porter.plan(tiny_gemma, to="keras", dtype="float16")
        gc.collect()
    assert [str(one.message) for one in seen if issubclass(one.category, ResourceWarning)] == []
