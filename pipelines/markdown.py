"""Markdown from data, safe by construction: what stands in the data is text, never markup."""

import re
from collections.abc import Iterable, Sequence

from pipelines.markup import visible

_ACTIVE = re.compile(r"([\\`*_{}\[\]()#|~!$^])")
"""Characters that begin emphasis, code, links, images, tables, formulas or footnotes."""

_AT_THE_START = re.compile(r"^(\s*)([-+=>]|\d+[.)])")
"""What makes a line a list, a quotation or a heading's underline."""


def text(value: object) -> str:
    """`value` as one line of plain text: markup escaped, HTML inert, addresses no links, controls made visible."""
    line = " ".join(visible(value).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = _ACTIVE.sub(r"\\\1", line)
    line = _AT_THE_START.sub(lambda found: f"{found[1]}&#{ord(found[2][0])};{found[2][1:]}", line)
    # Renderers turn bare addresses and names into links.
    return line.replace("://", "&#58;//").replace("www.", "www&#46;").replace("@", "&#64;")


def code(value: object) -> str:
    """`value` as one line of code, whatever backticks it holds; empty values stay empty."""
    line = " ".join(visible(value).split())
    fence = "`" * (_longest_run(line) + 1)
    space = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{space}{line}{space}{fence}" if line else ""


def block(content: str, language: str) -> str:
    """`content` as a code block that nothing in it can close."""
    fence = "`" * max(3, _longest_run(content) + 1)
    return f"{fence}{language}\n{visible(content).rstrip()}\n{fence}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are Markdown already."""
    # A pipe ends a cell even inside code.
    lines = [[cell.replace("\\|", "|").replace("|", "\\|") for cell in row] for row in (head, *rows)]
    shown = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([shown[0], "|" + "---|" * len(head), *shown[1:]])


def _longest_run(content: str) -> int:
    return max((len(run) for run in re.findall(r"`+", content)), default=0)
