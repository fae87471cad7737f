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


def failed(reply):
    """A site that could not write the model."""
    return failure(reply.kind, reply.site, 0, "the disk is full", MessageError())


def times_told(sites):
    return [site.asked().count(RESULT.kind) for site in sites]


def test_a_site_that_refuses_has_not_been_told_and_is_asked_at_the_next_start(run_with, caplog):
    run, sites = run_with()
    sites[1].changes[RESULT.kind] = failed
    run.coordinator._tell_seconds = 3600.0  # who refuses is asked once, and not waited for
    run.take(RESULT)
    assert times_told(sites) == [1, 1, 1] and run.state.told == ["a", "c"]
    assert "the disk is full" in run.last["refused"]["b"]
    assert "b: not told that the study is over" in caplog.text and "--tell" in caplog.text
    sites[1].changes.clear()
    run.take(RESULT)
    assert run.state.told == ["a", "c", "b"]


def test_a_site_that_refused_is_asked_again_when_it_has_connected_anew(run_with, monkeypatch):
    run, (a, b, c) = run_with()
    monkeypatch.setattr("hica_server.telling.POLL_SECONDS", 0.0)
    run.coordinator._tell_seconds = 3600.0

    def restarted(reply):
        b.changes.clear()
        run.grid.away = {2: 1, 3: 5}
        return failed(reply)

    b.changes[RESULT.kind] = restarted
    run.grid.away = {3: 3}
    run.take(RESULT)
    assert times_told((a, b, c)) == [1, 2, 1] and run.state.told == ["a", "b", "c"]


def test_a_site_that_was_told_is_told_again_at_the_next_start(run_with):
    """It may have lost its result."""
    run, sites = run_with()
    run.take(RESULT).take(RESULT)
    assert times_told(sites) == [2, 2, 2] and run.state.told == ["a", "b", "c"]


def test_who_was_told_before_is_not_waited_for(run_with):
    run, sites = run_with()
    run.grid.away = {3: 1}
    run.take(RESULT)
    assert run.state.told == ["a", "b"]
    run.coordinator._tell_seconds = 3600.0
    run.grid.away = {2: 10**9}
    run.take(RESULT)
    assert times_told(sites) == [2, 1, 1] and run.state.told == ["a", "b", "c"]


def test_where_all_were_told_before_each_is_waited_for(run_with, monkeypatch):
    run, sites = run_with()
    monkeypatch.setattr("hica_server.telling.POLL_SECONDS", 0.0)
    run.take(RESULT)
    run.coordinator._tell_seconds = 3600.0
    run.grid.away = {2: 3}
    run.take(RESULT)
    assert times_told(sites) == [2, 2, 2]


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
    run, (a, b, c) = run_with()
    a.withdrawn, b.withdrawn, c.withdrawn = 7, -1, "some"
    run.take(RESULT)
    assert run.state.withdrawn == {"a": 7, "c": "some"}
    assert "withdrawn" in run.last["refused"]["b"]
