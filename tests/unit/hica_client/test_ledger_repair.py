import json
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hica.errors import BudgetError, DataError
from hica.privacy.accountant import epsilon
from hica_client import audit, chain, ledger_repair
from hica_client.audit import Event
from hica_client.ledger import Budget, Release, Spending, spendings, verify
from hica_client.ledger import charge as ledger_charge
from hica_client.ledger_repair import repair

DELTA = 1e-5
MUCH = 1e6
KINDS = ("train.moments", "train.clusters", "train.align")


@pytest.fixture(autouse=True)
def _a_second_an_entry(monkeypatch):
    """Entries of both logs are a second apart, as they are where something is computed."""
    seconds = count()

    class Clock:
        @staticmethod
        def now(zone):
            return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=next(seconds))

    monkeypatch.setattr(chain, "datetime", Clock)


def charge(path, each, most, delta, **options):
    """Charge it, under a site's budget and a study's that is never reached."""
    budget = Budget(max_epsilon=most, delta=delta, study_epsilon=1e9, study_delta=delta)
    return ledger_charge(path, each, budget, **options)


def release(number, audited=0):
    """Charges of three kinds and two studies in turn."""
    kind = number % 3
    return Release(
        study=("ab" if number < 4 else "cd") * 32,
        run_id=7,
        round=number,
        kind=KINDS[kind],
        question=f"{number:064x}",
        audited=audited,
        mechanism="gaussian",
        unit="patient",
        holds="everyone",
        noise="secure",
        noise_multiplier=4.0 + kind,
        steps=1 + kind,
    )


class Site:
    """Ledger and audit log of a site that answered so many requests."""

    def __init__(self, folder: Path, answers: int) -> None:
        self.ledger, self.head = folder / "ledger.jsonl", folder / "ledger.head"
        self.log = folder / "audit.jsonl"
        for number in range(answers):
            self.charge(number)
            self.send(number)

    def charge(self, number):
        charge(self.ledger, release(number, audit.position(self.log)), MUCH, DELTA)

    def send(self, number, kind="", decision="sent"):
        each = release(number)
        names = {"kind": kind or each.kind, "study": each.study, "run_id": each.run_id}
        audit.append(self.log, Event("message", decision, round=number, **names))

    def spent(self):
        return epsilon((each.charge for each in spendings(verify(self.ledger))), DELTA)

    def repair(self):
        return repair(self.ledger, self.log, "engineer")

    def lines(self):
        return self.ledger.read_bytes().splitlines(keepends=True)

    def files(self):
        return sorted(path.name for path in self.ledger.parent.iterdir())


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path, 6)


def truth(answers):
    return epsilon((release(number).charge for number in range(answers)), DELTA)


def test_a_whole_ledger_is_left_alone(site):
    before = site.ledger.read_bytes(), site.head.read_bytes(), site.files()
    assert site.repair() == []
    assert (site.ledger.read_bytes(), site.head.read_bytes(), site.files()) == before


def test_what_was_spent_is_carried_on_from_the_head_of_a_ledger_that_is_gone(site):
    before, whole = site.spent(), spendings(verify(site.ledger))
    head = site.head.read_bytes()
    site.ledger.unlink()
    kept = site.repair()
    [entry] = verify(site.ledger)
    assert site.spent() == before == truth(6)
    assert spendings([entry]) == whole
    assert (entry["event"], entry["user"]) == ("repair", "engineer")
    assert entry["why"] == f"{site.ledger}: ends after entry 0, but 6 were written: cut short"
    assert entry["kept"] == [path.name for path in kept]
    assert [path.name.partition("-")[0] for path in kept] == ["ledger.damaged", "ledger.damaged"]
    assert [path.suffix for path in kept] == [".jsonl", ".head"]
    assert kept[1].read_bytes() == head


def test_it_is_carried_on_from_the_lines_where_the_head_is_gone(site):
    site.head.unlink()
    assert len(site.repair()) == 1
    assert site.spent() == truth(6)


def test_what_follows_a_repair_is_charged_on_top(site):
    site.ledger.write_bytes(site.lines()[0])
    site.repair()
    site.charge(6)
    site.send(6)
    assert site.spent() == truth(7)
    with pytest.raises(BudgetError):
        charge(site.ledger, release(7), truth(7), DELTA)


def test_a_repaired_ledger_is_repaired_again(site):
    for damaged in (site.ledger, site.head, site.ledger):
        damaged.write_bytes(b"x" + damaged.read_bytes())
        assert len(site.repair()) == 2
        assert site.spent() == truth(6)
    assert len(verify(site.ledger)) == 1
    assert sum("damaged" in name for name in site.files()) == 6


def test_lines_that_somebody_made_smaller_with_their_hashes_do_not_count_less(site):
    """Sound lines that contradict the head: of each kind of release, the larger sum."""
    entries = verify(site.ledger)
    previous, lines = chain.FIRST, []
    for entry in entries:
        body = {name: value for name, value in entry.items() if name != "hash"}
        lines.append(chain.sealed({**body, "noise_multiplier": 99.0, "previous": previous}))
        previous = json.loads(lines[-1])["hash"]
    site.ledger.write_bytes(b"".join(lines))
    site.repair()
    assert site.spent() > truth(6)


def test_lines_after_an_old_head_are_added_to_it(tmp_path):
    site = Site(tmp_path, 2)
    old = site.head.read_bytes()
    for number in range(2, 6):
        site.charge(number)
        site.send(number)
    site.head.write_bytes(old)
    site.ledger.write_bytes(b"".join([b"{}\n", *site.lines()[1:]]))
    site.repair()
    assert site.spent() == truth(6)


def test_an_old_head_and_a_damaged_line_after_it_prove_too_little(tmp_path):
    site = Site(tmp_path, 2)
    old = site.head.read_bytes()
    for number in range(2, 6):
        site.charge(number)
        site.send(number)
    site.head.write_bytes(old)
    whole = site.lines()
    for place in (3, 5):  # in between, and the last one
        site.ledger.write_bytes(b"".join([*whole[:place], b"{}\n", *whole[place + 1 :]]))
        with pytest.raises(
            DataError, match=f"an answer to {release(place).kind}, round {place + 1}"
        ):
            site.repair()


def test_a_lost_end_without_a_head_is_told_by_the_audit_log(site):
    site.head.unlink()
    site.ledger.write_bytes(b"".join(site.lines()[:4]))
    before = site.ledger.read_bytes(), site.files()
    words = r"cannot be proven: audit\.jsonl has an answer to train\.clusters, round 5.*backup.*out"
    with pytest.raises(DataError, match=words):
        site.repair()
    assert (site.ledger.read_bytes(), site.files()) == before


def test_a_clock_that_was_set_back_hides_no_answer(tmp_path, monkeypatch):
    """The order of the audit log decides what came after the last proven charge, not the time."""
    seconds = count()

    class Backward:
        @staticmethod
        def now(zone):
            return datetime(2026, 1, 1, tzinfo=UTC) - timedelta(hours=next(seconds))

    monkeypatch.setattr(chain, "datetime", Backward)
    site = Site(tmp_path, 6)
    site.head.unlink()
    site.ledger.write_bytes(b"".join(site.lines()[:4]))
    with pytest.raises(DataError, match=r"an answer to train\.clusters, round 5"):
        site.repair()


def test_a_ledger_that_is_gone_with_its_head_is_told_by_the_audit_log(site):
    site.head.unlink()
    site.ledger.unlink()
    with pytest.raises(DataError, match=r"an answer to train\.moments, round 1"):
        site.repair()


def test_an_empty_audit_log_is_no_witness(site):
    site.head.unlink()
    site.log.unlink()
    site.log.with_suffix(".head").unlink()
    with pytest.raises(DataError, match=r"cannot be proven: audit\.jsonl is empty"):
        site.repair()


def test_a_damaged_audit_log_is_no_witness(site):
    site.head.unlink()
    site.log.write_bytes(site.log.read_bytes()[:-10])
    with pytest.raises(DataError, match=r"audit\.jsonl: .*cut short"):
        site.repair()


def test_answers_that_are_no_releases_prove_nothing_lost(site):
    site.send(5, "evaluate.metrics")
    site.send(6, "query.capabilities")
    site.send(6, decision="refused")
    site.send(6, decision="failed")
    audit.append(site.log, Event("application", "refused"))
    site.head.unlink()
    site.repair()
    assert site.spent() == truth(6)


def test_nothing_was_ever_charged(tmp_path):
    site = Site(tmp_path, 0)
    assert site.repair() == []
    site.send(0, "query.capabilities")
    assert site.repair() == []
    site.charge(0)
    assert site.spent() == truth(1)


@pytest.mark.parametrize("damaged", ["ledger", "head"])
@pytest.mark.parametrize("place", ["write_atomically", "write_head"])
def test_killed_in_a_repair_it_can_be_repeated(site, monkeypatch, damaged, place):
    def killed(*_):
        raise KeyboardInterrupt

    file = getattr(site, damaged)
    file.write_bytes(b"x" + file.read_bytes())
    with monkeypatch.context() as patch:
        patch.setattr(ledger_repair, place, killed)
        with pytest.raises(KeyboardInterrupt):
            site.repair()
    with pytest.raises(DataError, match="--repair"):
        verify(site.ledger)
    site.repair()
    assert site.spent() == truth(6)


flips = st.tuples(st.just("flip"), st.integers(0, 10**6), st.integers(1, 255))
cuts = st.tuples(st.just("cut"), st.integers(0, 10**6), st.just(0))
drops = st.tuples(st.just("drop"), st.integers(0, 10**6), st.integers(1, 3000))
inserts = st.tuples(st.just("insert"), st.integers(0, 10**6), st.integers(0, 255))
lines_out = st.tuples(st.just("line out"), st.integers(0, 50), st.just(0))
lines_twice = st.tuples(st.just("line twice"), st.integers(0, 50), st.integers(0, 50))
damages = st.lists(
    st.one_of(flips, cuts, drops, inserts, lines_out, lines_twice), min_size=1, max_size=4
)


def damage(file, steps):
    """Bytes changed, cut off, taken out and put in; lines taken out and repeated elsewhere."""
    for what, place, amount in steps:
        text = file.read_bytes()
        lines = text.splitlines(keepends=True)
        if what == "line out" and lines:
            del lines[place % len(lines)]
            text = b"".join(lines)
        elif what == "line twice" and lines:
            lines.insert(amount % len(lines), lines[place % len(lines)])
            text = b"".join(lines)
        elif what in ("flip", "cut", "drop", "insert"):
            at = place % (len(text) + 1)
            middle = {
                "flip": bytes(byte ^ amount % 256 for byte in text[at : at + 1]) + text[at + 1 :],
                "cut": b"",
                "drop": text[at + amount :],
                "insert": bytes([amount % 256]) + text[at:],
            }
            text = text[:at] + middle[what]
        file.write_bytes(text)


@settings(max_examples=75)
@given(st.integers(1, 6), damages, st.sampled_from(["ledger", "head"]))
def test_no_damage_of_one_file_changes_what_was_spent(answers, steps, damaged):
    with TemporaryDirectory() as folder:
        site = Site(Path(folder), answers)
        damage(getattr(site, damaged), steps)
        site.repair()
        assert site.spent() == truth(answers)


@settings(max_examples=75)
@given(st.integers(1, 6), damages, damages, st.booleans())
def test_damage_of_both_files_never_lowers_what_was_spent(answers, some, others, lags):
    with TemporaryDirectory() as folder:
        site = Site(Path(folder), answers)
        if lags:  # killed between line and head; nothing was sent for it
            head = site.head.read_bytes()
            site.charge(answers)
            site.head.write_bytes(head)
        damage(site.ledger, some)
        damage(site.head, others)
        try:
            site.repair()
        except DataError as error:
            assert "cannot be proven" in str(error)
        else:
            assert site.spent() >= truth(answers)


def test_the_larger_of_two_sums_of_each_kind():
    def some(multiplier, steps):
        fields = {"study": "a", "mechanism": "gaussian", "unit": "image", "holds": "everyone"}
        return Spending(**fields, noise="seeded", noise_multiplier=multiplier, steps=steps)

    found = ledger_repair._larger([some(1.0, 3), some(2.0, 1)], [some(2.0, 5), some(3.0, 1)])
    assert found == [some(1.0, 3), some(2.0, 5), some(3.0, 1)]
