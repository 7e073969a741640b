"""The report of `porter diff`: how much which tensors of two models differ, and what else does."""

from __future__ import annotations

from porter.reporting import html_config
from porter.reporting.differences import verdict_line
from porter.reporting.html_heat import SHADES, Heat, by_tens, heat_map, short
from porter.reporting.html_page import items, page, paragraph, table
from porter.verification.model_diff import ModelDiff, ValueDifference

_HEAD = [
    *("Tensor", "Shape", "Differing", "Max |Δ|", "Mean |Δ|", "Relative", "Cosine", "First at", "A", "B"),
    "Rank",
]


def diff_report(found: ModelDiff) -> str:
    """From the value that `porter.diff` returns."""
    sides = zip((found.a, found.b), found.families, found.dialects, strict=True)
    lead = [
        paragraph(verdict_line(found), f"verdict {'good' if found.same else 'bad'}"),
        *(paragraph(f"{'AB'[n]}: {name} ({family or 'no table'} {dialect})".replace(" )", ")"), "dim")
          for n, (name, family, dialect) in enumerate(sides)),
    ]  # fmt: skip
    sections: list[tuple[str, str, str]] = []
    if found.values:
        heat = (Heat(value.name, _shade(value), _says(value)) for value in found.values)
        corner = "norm of the difference over that of A"
        sections.append(("heat", "How much values differ", heat_map(heat, corner)))
        sections.append(("values", "Tensors that differ in value", _values(found)))
    lone = [[t.name, side, str(list(t.shape))] for side, tensors in
            (("A", found.only_in_a), ("B", found.only_in_b)) for t in tensors]  # fmt: skip
    if lone:
        told = table([["Tensor", "Only in", "Shape"], *lone], name="lone")
        sections.append(("lone", "Tensors that one side has", told))
    shapes = [[t.name, str(list(t.a)), str(list(t.b))] for t in found.shapes]
    shapes += [[t.name, t.a, t.b] for t in found.dtypes]
    if shapes:
        sections.append(("forms", "Other shapes and dtypes", table([["Tensor", "A", "B"], *shapes])))
    if found.config is not None and found.fields:
        differing = [each.name for each in found.config]
        told = html_config.compared(found.fields, ("A", "B"), differing)
        sections.append(("config", "Configs", told))
    if found.tokenizer is not None:
        sections.append(("tokenizer", "Tokenizers", paragraph(found.tokenizer.says)))
    if found.notes:
        sections.append(("notes", "Notes", items(found.notes)))
    return page(f"porter diff: {'same' if found.same else 'differs'}", lead, sections)


def _shade(value: ValueDifference) -> int:
    return SHADES if value.relative is None or value.odd else by_tens(value.relative)


def _says(value: ValueDifference) -> str:
    return "not finite" if value.relative is None else short(value.relative)


def _values(found: ModelDiff) -> str:
    rows = [_HEAD]
    for value in found.values:
        cosine = "" if value.cosine is None else f"{value.cosine:.6f}"
        rows.append(
            [
                value.name,
                str(list(value.shape)),
                f"{value.differing:,} of {value.compared:,}",
                f"{value.max_abs:.3g}",
                f"{value.mean_abs:.3g}",
                _says(value),
                cosine,
                str(list(value.first)),
                "" if value.a is None else f"{value.a:.6g}",
                "" if value.b is None else f"{value.b:.6g}",
                "" if value.rank is None else str(value.rank),
            ]
        )
    return table(rows, right=(2, 3, 4, 5, 6, 8, 9, 10), name="tensors")
