import threading

from cluster.errors import UserError
from ui.panel.last_known import LastKnown


def fail(error):
    raise error


def test_a_read_is_known_with_its_time():
    known = LastKnown().read("key", "The database", "Look.", lambda: 3)
    assert known.value == 3
    assert known.read_at is not None
    assert known.problem is None


def test_a_source_that_is_away_leaves_the_last_state_with_its_age_and_a_remedy():
    memory = LastKnown()
    first = memory.read("key", "Tracking", "Check SLUICE_TRACKING.", lambda: 3)
    later = memory.read("key", "Tracking", "Check SLUICE_TRACKING.", lambda: fail(ConnectionError("refused\nmore")))
    assert later.value == 3
    assert later.read_at == first.read_at
    assert later.problem.message == "Tracking cannot be read: refused"
    assert later.problem.remedy == "Check SLUICE_TRACKING."


def test_a_source_that_was_never_read_says_so():
    known = LastKnown().read("key", "Ray", "Look.", lambda: fail(OSError("gone")))
    assert (known.value, known.read_at) == (None, None)
    assert known.problem is not None


def test_a_user_error_brings_its_own_words():
    known = LastKnown().read("key", "Ray", "Look.", lambda: fail(UserError("The cluster is away.", "Start it.")))
    assert (known.problem.message, known.problem.remedy) == ("The cluster is away.", "Start it.")


def test_a_read_that_hangs_is_late_once_and_never_started_twice():
    memory = LastKnown(deadline_s=0.05)
    memory.read("key", "Ray", "Look.", lambda: "before")
    release, started = threading.Event(), []

    def slow():
        started.append(1)
        release.wait(30)
        return "after"

    for _ in range(3):
        late = memory.read("key", "Ray", "Look.", slow)
        assert late.value == "before"
        assert "did not answer" in late.problem.message
    assert len(started) == 1
    patient = LastKnown(deadline_s=30)
    patient._running = memory._running
    release.set()
    assert patient.read("key", "Ray", "Look.", slow).value == "after"


def test_keys_do_not_mix_and_the_oldest_are_forgotten():
    memory = LastKnown(capacity=2)
    for key in ("a", "b", "c"):
        memory.read(key, "The database", "", lambda key=key: key)
    assert memory.read("a", "The database", "", lambda: fail(OSError())).value is None
    assert memory.read("c", "The database", "", lambda: fail(OSError())).value == "c"
