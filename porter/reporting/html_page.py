"""One self-contained HTML page: what every report is made of.

Everything that comes from a checkpoint passes through `text`. Should a name ever get past it, the page's own
policy still lets no script run but the one below, known by its digest, and nothing be fetched.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence

from porter.untrusted import escape

STYLE = """
:root { color-scheme: light dark; --line: #d0d7de; --soft: #f3f5f8; --text: #1c2128; --dim: #59636e;
  --back: #fff; --good: #1a7f37; --bad: #b3261e; --link: #0b5cad; --hot: 179, 38, 30; }
@media (prefers-color-scheme: dark) { :root { --line: #3a424c; --soft: #1d232b; --text: #e6e9ed;
  --dim: #9aa5b1; --back: #12161b; --good: #4cc26b; --bad: #ff8a80; --link: #7cb7ff; --hot: 255, 110, 100; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1.5rem; background: var(--back); color: var(--text);
  font: 15px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.45rem; margin: 0 0 .2rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .6rem; }
p { margin: .3rem 0; } .dim { color: var(--dim); } .good { color: var(--good); } .bad { color: var(--bad); }
.verdict { font-size: 1.1rem; font-weight: 600; } nav a { margin-right: 1rem; color: var(--link); }
code, td.name, .flow span { font: 13px/1.5 ui-monospace, monospace; }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .2rem .7rem .2rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; } th { color: var(--dim); font-weight: 600; overflow-wrap: normal; }
td.name { min-width: 9rem; } .right { text-align: right;
  font-variant-numeric: tabular-nums; white-space: nowrap; }
details > summary { cursor: pointer; padding: .2rem 0; border-bottom: 1px solid var(--line); }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
.flow { display: inline-grid; grid-template-columns: 5fr 4fr 5fr; gap: 1rem; width: calc(100% - 2rem);
  vertical-align: top; } .inside { padding: .3rem 0 .6rem 1.2rem; }
.tag { background: var(--soft); border-radius: 4px; padding: 0 .35rem; }
input { font: inherit; width: 100%; max-width: 26rem; padding: .3rem .5rem; margin-bottom: .5rem;
  color: var(--text); background: var(--soft); border: 1px solid var(--line); border-radius: 6px; }
.heat td { padding: .1rem .35rem; border: 1px solid var(--line); text-align: right; font-size: 12px;
  white-space: nowrap;
  font-variant-numeric: tabular-nums; } .heat th { padding: .1rem .35rem; font-size: 12px; }
.heat { margin-bottom: 1rem; width: auto; } .heat th:first-child { width: 22rem; min-width: 13rem;
  overflow-wrap: anywhere; }
.h1 { background: rgba(var(--hot), .10); } .h2 { background: rgba(var(--hot), .22); }
.h3 { background: rgba(var(--hot), .38); } .h4 { background: rgba(var(--hot), .55); }
.h5 { background: rgba(var(--hot), .75); } .differs { outline: 2px solid var(--bad); outline-offset: -2px; }
.other td { background: var(--soft); font-weight: 600; }
svg { width: 100%; height: auto; } svg text { fill: var(--dim); font: 11px system-ui, sans-serif; }
svg .mark { fill: var(--link); } svg .over { fill: var(--bad); } svg .bound { stroke: var(--dim); }
@media print { nav, input { display: none; } body { max-width: none; padding: 0; font-size: 11px; }
  details > summary { list-style: none; } .wide { overflow: visible; } tr { break-inside: avoid; }
  h2, summary { break-after: avoid; } .heat { break-inside: avoid; }
  table, code, td.name, .flow span { font-size: 10px; }
  th, td { padding-right: .4rem; } td.name { min-width: 7rem; } .heat td, .heat th { font-size: 9px;
  padding: .1rem .2rem; print-color-adjust: exact; } .heat th:first-child { width: 11rem; min-width: 9rem; } }
"""

# The search fields are useless without it, and are shown by it.
SCRIPT = """
for (const field of document.querySelectorAll("input[data-table]")) {
  field.hidden = false;
  const rows = document.getElementById(field.dataset.table).querySelectorAll("[data-row]");
  field.addEventListener("input", () => {
    const wanted = field.value.toLowerCase();
    for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
  });
}
document.addEventListener("keydown", (event) => {
  const field = document.querySelector("input[data-table]");
  if (event.key === "/" && field && document.activeElement.tagName !== "INPUT") {
    field.focus();
    event.preventDefault();
  }
});
let closed = [];
addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("details:not([open])")];
  if (closed.length < 500) for (const part of closed) part.open = true;
});
addEventListener("afterprint", () => { for (const part of closed) part.open = false; });
"""


def text(value: object) -> str:
    """Anything as text that is no markup and holds no invisible characters."""
    return escape(str(value), "html")


def page(title: str, lead: Sequence[str], sections: Sequence[tuple[str, str, str]]) -> str:
    """A whole page. `lead` are paragraphs of markup below the title; a section is (anchor, heading, markup).

    `title` and headings are text, anchors words.
    """
    policy = f"default-src 'none'; style-src '{_digest(STYLE)}'; script-src '{_digest(SCRIPT)}'"
    links = " ".join(f'<a href="#{anchor}">{text(heading)}</a>' for anchor, heading, _ in sections)
    body = "\n".join(
        f'<section id="{anchor}"><h2>{text(heading)}</h2>\n{markup}\n</section>'
        for anchor, heading, markup in sections
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>{STYLE}</style></head><body>\n"
        f"<header><h1>{text(title)}</h1>\n{''.join(lead)}</header>\n"
        f'<nav aria-label="Sections">{links}</nav>\n<main>{body}</main>\n'
        f"<script>{SCRIPT}</script></body></html>\n"
    )


def table(
    rows: Sequence[Sequence[str]], *, right: Sequence[int] = (), marked: Sequence[int] = (), name: str = ""
) -> str:
    """Rows of text, the first of them the header. `marked` rows stand out; a `name` gives a search field."""
    head, *rest = rows
    cells = "".join(f'<th scope="col"{_right(at, right)}>{text(cell)}</th>' for at, cell in enumerate(head))
    lines = []
    for number, row in enumerate(rest):
        kind = ' class="other"' if number in marked else ""
        inner = "".join(
            f"<td{_right(at, right) or (' class=name' if at == 0 else '')}>{text(cell)}</td>"
            for at, cell in enumerate(row)
        )
        lines.append(f"<tr data-row{kind}>{inner}</tr>")
    anchor = f' id="{name}"' if name else ""
    made = f'<div class="wide"><table{anchor}><thead><tr>{cells}</tr></thead>'
    return f"{search(name) if name else ''}{made}<tbody>{''.join(lines)}</tbody></table></div>"


def search(name: str) -> str:
    """A field that hides what does not hold its text, of the rows inside the element `name`."""
    return (
        f'<input type="search" data-table="{name}" hidden placeholder="Search (press /)" '
        'aria-label="Search names">'
    )


def details(summary: str, inside: str, *, opened: bool = False) -> str:
    """A part that opens; both are markup."""
    return (
        f"<details data-row{' open' if opened else ''}><summary>{summary}</summary>"
        f'<div class="inside">{inside}</div></details>'
    )


def paragraph(words: object, kind: str = "") -> str:
    return f'<p class="{kind}">{text(words)}</p>' if kind else f"<p>{text(words)}</p>"


def items(lines: Iterable[object]) -> str:
    return "<ul>" + "".join(f"<li>{text(line)}</li>" for line in lines) + "</ul>"


def _right(at: int, right: Sequence[int]) -> str:
    return ' class="right"' if at in right else ""


def _digest(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
