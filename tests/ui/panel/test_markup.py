from datetime import UTC, datetime, timedelta

import pytest
from markupsafe import Markup

from ui.panel.markup import age, duration, html, number, visible


def test_markup_in_data_is_escaped():
    shown = html("<td>{value}</td>", value='<img src=x onerror="alert(1)">&')
    assert shown == "<td>&lt;img src=x onerror=&#34;alert(1)&#34;&gt;&amp;</td>"


def test_a_quote_in_data_cannot_leave_an_attribute():
    assert html('<b title="{v}">', v='" onmouseover="x') == '<b title="&#34; onmouseover=&#34;x">'


def test_braces_in_data_are_no_template():
    assert html("{value}", value="{0.__class__}") == "{0.__class__}"


def test_markup_goes_in_as_it_is_and_numbers_keep_their_format():
    assert html("{a}{b:.1f}", a=Markup("<b>x</b>"), b=2.25) == "<b>x</b>2.2"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", r"\x1b[31mred"),
        ("a\x00b", r"a\x00b"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("zero\u200bwidth", r"zero\u200bwidth"),
        ("two\r\nlines\tand a tab", "two\nlines\tand a tab"),
        ("می‌خواهم", "می‌خواهم"),
    ],
)
def test_hidden_characters_become_visible_and_text_stays(text, shown):
    assert visible(text) == shown


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s ago"),
        (59, "59 s ago"),
        (61, "1 min ago"),
        (7300, "2 h ago"),
        (90000, "1 day ago"),
        (200000, "2 days ago"),
    ],
)
def test_ages_are_said_in_their_largest_unit(seconds, said):
    now = datetime(2030, 1, 2, tzinfo=UTC)
    assert age(now - timedelta(seconds=seconds), now) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.44, "0.4 s"), (48.4, "48 s"), (59.7, "1 min 0 s"), (432, "7 min 12 s"), (11100, "3 h 5 min")],
)
def test_durations_are_said_in_two_units(seconds, said):
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [(1234567, "1,234,567"), (0.17346, "0.1735"), (2.0, "2"), (318.42, "318.4"), (12345.6, "12,346"), (True, "yes"),
     (float("nan"), "nan"), (float("inf"), "inf"), (5e-4, "0.0005"), (-0.896, "-0.896")],
)  # fmt: skip
def test_numbers_are_said_for_people(value, said):
    assert number(value) == said
