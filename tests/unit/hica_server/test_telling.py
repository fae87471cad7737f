"""The end of a study reaches every site that took part, and no answer is needed."""

from dataclasses import replace

import pytest

from hica.errors import MessageError
from hica.steps.result import RESULT
from hica.wire.messages import failure


@pytest.fixture
def run_with(make_run, make_site):
    """A run that has met its sites: `a`, `b` and one without test images, `c`."""

    def run(**more):
        sites = [make_site("a"), make_site("b"), make_site("c", test=0)]
        return make_run(*sites, **more).meet(), sites

    return run


def test_every_site_is_told_also_one_without_test_images(run_with):
    run, sites = run_with()
    before = run.learnt
    run.take(RESULT)
    assert [site.asked().count(RESULT.kind) for site in sites] == [1, 1, 1]
    assert run.learnt is before and run.state.told == ["a", "b", "c"]
    assert run.state.withdrawn == {"a": 0, "b": 0, "c": 0}
    assert run.last["stage"] == "result" and run.last["participants"] == ["a", "b", "c"]


def test_the_request_carries_the_model(run_with):
    run, (a, *_) = run_with()
    run.take(RESULT)
    assert a.requests[-1].arrays.keys() == run.learnt.arrays().keys()


def test_nobody_has_to_answer(run_with, caplog):
    run, _ = run_with(overrides=["federation.quorum=3"])
    run.grid.answers = dict.fromkeys(run.grid.answers, lambda _: None)
    run.take(RESULT)
    assert run.last["missing"] == ["a", "b", "c"] and run.state.told == []
    assert "not told that the study is over" in caplog.text and "--tell" in caplog.text


def test_a_site_that_refuses_is_not_asked_again(run_with):
    run, (a, b, c) = run_with()
    b.changes[RESULT.kind] = lambda reply: failure(
        reply.kind, "b", 0, "policy.kinds of this site does not list it", MessageError()
    )
    run.take(RESULT).take(RESULT)
    assert [site.asked().count(RESULT.kind) for site in (a, b, c)] == [1, 1, 1]
    assert "policy.kinds" in run.last["refused"]["b"]


def test_an_answer_that_tells_something_is_not_read(run_with):
    run, (a, *_) = run_with()
    a.changes[RESULT.kind] = lambda reply: replace(reply, examples=3)
    run.take(RESULT)
    assert "claims 3 examples" in run.last["refused"]["a"]


def test_who_is_away_is_told_when_it_is_back(run_with, monkeypatch):
    run, (a, b, c) = run_with()
    run.coordinator._tell_seconds = 3600.0
    monkeypatch.setattr("hica_server.telling.POLL_SECONDS", 0.0)
    run.grid.away = {2: 3}
    run.take(RESULT)
    assert [site.asked().count(RESULT.kind) for site in (a, b, c)] == [1, 1, 1]
    assert run.state.told == ["a", "c", "b"]


def test_who_is_away_is_not_waited_for_without_end(run_with, monkeypatch):
    run, (_, b, _) = run_with()
    run.grid.away = {2: 10**9}
    clock = iter(range(10**6))
    monkeypatch.setattr("hica_server.telling.time.monotonic", lambda: float(next(clock)))
    monkeypatch.setattr("hica_server.telling.POLL_SECONDS", 0.0)
    run.coordinator._tell_seconds = 50.0
    run.take(RESULT)
    assert b.asked().count(RESULT.kind) == 0 and run.state.told == ["a", "c"]


def test_how_many_patients_withdrew_is_noted_and_a_number_that_is_none_is_not_read(run_with):
    run, (a, b, _) = run_with()
    a.withdrawn, b.withdrawn = 2, -1
    run.take(RESULT)
    assert run.state.withdrawn == {"a": 2, "c": 0}
    assert "withdrawn" in run.last["refused"]["b"]
