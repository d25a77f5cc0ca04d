"""Markdown from data: what a renderer makes of it is text, whatever stands in it."""

import pytest
from markdown_it import MarkdownIt

from pipelines import markdown

HOSTILE = [
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "![beacon](http://example.com/a.png) [click](javascript:alert(1)) <http://example.com>",
    "# heading\n\n- list\n> quote\n---\n```\ncode\n```",
    "- a",
    "+ a",
    "1. a",
    "===",
    "a | b | c",
    "`code` **bold** _em_ ~~gone~~ $x$ [^1]",
    "\x1b[31mred\x1b[0m \u202egnp.exe \u200b",
    "a\\| b \\` c",
    "www.example.com https://example.com @somebody",
    "&lt;b&gt; &amp; &#60;",
]


def rendered(text):
    return MarkdownIt("commonmark", {"html": True}).enable("table").render(text)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_text_is_one_paragraph_without_markup(hostile):
    html = rendered(markdown.text(hostile))
    assert html.startswith("<p>") and html.endswith("</p>\n") and html.count("<") == 2, html
    assert "\x1b" not in html and "\u202e" not in html


@pytest.mark.parametrize("hostile", HOSTILE)
def test_code_is_one_piece_of_code(hostile):
    html = rendered(markdown.code(hostile))
    assert html.startswith("<p><code>") and html.endswith("</code></p>\n") and html.count("<") == 4, html


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_cell_stays_in_its_cell(hostile):
    html = rendered(markdown.table(("a", "b"), [(markdown.text(hostile), markdown.code(hostile))]))
    assert html.count("<table>") == 1 and html.count("<td>") == 2 and "<script" not in html and "<img" not in html


def test_a_block_is_closed_by_nothing_in_it():
    html = rendered(markdown.block("a: |\n  ```\n  <b>\n  ````\n", "yaml") + "\n\nafter")
    assert html.count("<pre>") == 1 and html.endswith("<p>after</p>\n") and "<b>" not in html
