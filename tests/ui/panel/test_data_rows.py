from types import SimpleNamespace

import pytest

from ui.panel import data_anomalies, data_backend, data_rows, frame
from ui.panel.data_backend import Reviewed
from ui.panel.last_known import Known


@pytest.fixture
def links(monkeypatch):
    """Key -> what it changes in the address, of the links that were drawn."""
    drawn = {}
    monkeypatch.setattr(data_rows, "go_here", lambda label, key, **changed: drawn.update({key: changed}))
    return drawn


def test_from_a_short_last_page_the_one_before_is_a_full_page_away(links):
    data_rows.pager(50, 3, 53, False, size=25)
    assert links["to-previous"]["offset"] == "25" and "to-next" not in links


def test_when_the_last_page_is_decided_the_one_before_it_is_shown(links, monkeypatch):
    asked, shown = [], []

    def queue(data, kind, offset, limit, *, decided_too):
        asked.append(offset)
        rows = () if offset else (SimpleNamespace(id="a", number=1),)
        return Known(Reviewed(rows, 10, {}, []), None, None)

    monkeypatch.setattr(data_backend, "queue", queue)
    monkeypatch.setattr(frame, "number_in_address", lambda name: 10)
    monkeypatch.setattr(data_anomalies, "_suspect", lambda data, row, review: shown.append(row.id))
    data = SimpleNamespace(audit=SimpleNamespace(figures={}))
    data_anomalies.anomalies(data)
    assert asked == [10, 0] and shown == ["a"]
