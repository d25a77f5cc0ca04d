"""Fingerprints: equal content, equal digits, on every machine and every day."""

from hypothesis import given
from hypothesis import strategies as st

from pipelines.fingerprint import file_fingerprint, fingerprint, folder_fingerprint, short

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def test_a_fingerprint_stays_what_it_was():
    # Stored reports are found by these digits: a change here would make all evidence vanish.
    assert fingerprint("audit", {"b": 1, "a": [1.5, None, "é"]}) == (
        "6b2041506a658335d8b935f3f81208eedde04789ef8a2a8dd6e2c68658d654ba"
    )


@given(st.dictionaries(st.text(), json_values))
def test_the_order_of_keys_does_not_matter(content):
    assert fingerprint(content) == fingerprint(dict(reversed(content.items())))


@given(json_values, json_values)
def test_other_content_has_another_fingerprint(one, other):
    # True == 1 in Python, not in JSON: compare as JSON does.
    same = repr(one) == repr(other)
    if not isinstance(one, dict | list) and not isinstance(other, dict | list):
        assert (fingerprint(one) == fingerprint(other)) == same


def test_parts_are_not_glued_together():
    assert fingerprint("ab", "c") != fingerprint("a", "bc")
    assert fingerprint(["a"], "b") != fingerprint(["a", "b"])


def test_one_byte_changes_a_files_fingerprint(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_bytes(b'{"a": 1}\n')
    before = file_fingerprint(path)
    path.write_bytes(b'{"a": 2}\n')
    assert file_fingerprint(path) != before
    path.write_bytes(b'{"a": 1}\n')
    assert file_fingerprint(path) == before


def test_a_folders_fingerprint_covers_names_and_bytes_and_not_its_place(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name / "inner").mkdir(parents=True)
        (tmp_path / name / "inner" / "weights").write_bytes(b"123")
    first = folder_fingerprint(tmp_path / "one")
    assert folder_fingerprint(tmp_path / "two") == first
    (tmp_path / "two" / "inner" / "weights").rename(tmp_path / "two" / "inner" / "other")
    assert folder_fingerprint(tmp_path / "two") != first


def test_the_short_form_is_its_beginning():
    assert fingerprint("x").startswith(short(fingerprint("x"))) and len(short(fingerprint("x"))) == 12
