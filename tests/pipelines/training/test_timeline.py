"""What each step learnt from."""

from pipelines.training.timeline import Timeline


def test_a_timeline_is_read_as_it_was_written(tmp_path):
    steps = [[3, 1], [], [2, 0]]
    Timeline(steps).write(tmp_path)
    read = Timeline.read(tmp_path)
    assert list(read) == steps
    read.add([4])
    assert len(read) == 4


def test_an_empty_one_is_written_too(tmp_path):
    Timeline().write(tmp_path)
    assert list(Timeline.read(tmp_path)) == []


def test_visits_tell_whether_each_was_seen_equally_often():
    assert Timeline([[0, 1], [2]]).visits(3) == (1, 1)
    assert Timeline([[0, 1], [1]]).visits(3) == (0, 2)
