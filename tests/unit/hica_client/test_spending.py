import json

import pytest

from hica.privacy.accountant import Charge, epsilon
from hica_client.chain import FIRST
from hica_client.cli import main
from hica_client.ledger import Budget, Release, verify
from hica_client.ledger import charge as ledger_charge
from hica_client.site import load_site
from hica_client.spending import MOST_STEPS, _most, spending

DELTA = 1e-4
FIRST_STUDY, SECOND_STUDY = "ab" * 32, "cd" * 32
TRAINING, CENTRE = Charge(1.7, 0.26, 40), Charge(5.0)


def charge(path, each, most, delta, **options):
    """Charge it, under a site's budget and a study's that is never reached."""
    budget = Budget(max_epsilon=most, delta=delta, study_epsilon=1e9, study_delta=delta)
    return ledger_charge(path, each, budget, **options)


def release(study, spent, holds="everyone", **fields):
    return Release(
        study=study,
        run_id=7,
        round=1,
        kind="train.align",
        question="12" * 32,
        mechanism="gaussian" if spent.sampling_rate == 1 else "sampled gaussian",
        unit="patient",
        holds=holds,
        noise="secure",
        noise_multiplier=spent.noise_multiplier,
        sampling_rate=spent.sampling_rate,
        steps=spent.steps,
        **fields,
    )


@pytest.fixture
def site_file(tmp_path):
    path = tmp_path / "site.toml"
    path.write_text(
        '[site]\nname = "north"\n[data]\nmanifest = "manifest.csv"\n'
        f"[policy]\nmax_epsilon = 12.0\ndelta = {DELTA}\n"
    )
    return path


@pytest.fixture
def ledger(site_file):
    return load_site(site_file).ledger


@pytest.fixture
def run(capsys, monkeypatch, site_file):
    """Run `hica-client ledger` on the site."""

    def run(*arguments):
        monkeypatch.setenv("COLUMNS", "160")
        with pytest.raises(SystemExit) as end:
            main(["ledger", str(site_file), *arguments])
        out, err = capsys.readouterr()
        return end.value.code, out, err

    return run


def fill(ledger):
    for each in (
        release(FIRST_STUDY, CENTRE),
        release(FIRST_STUDY, TRAINING),
        release(FIRST_STUDY, TRAINING),
        release(SECOND_STUDY, CENTRE, "the [red]coordinator, of the sum over 3 sites"),
    ):
        charge(ledger, each, 12.0, DELTA)


ALL = [CENTRE, TRAINING, TRAINING, CENTRE]


def test_spent_and_left_by_study_mechanism_and_unit(ledger, run):
    fill(ledger)
    code, out, _ = run("--json")
    found = json.loads(out)
    assert code == 0
    assert found["epsilon"] == epsilon(ALL, DELTA)
    assert found["left"] == 12.0 - found["epsilon"]
    assert (found["entries"], found["unit"], found["repairs"]) == (4, "patient", [])
    entries = verify(ledger)
    assert found["hash"] == entries[-1]["hash"]
    assert (found["first"], found["last"]) == (entries[0]["time"], entries[-1]["time"])
    rows = {(row["study"], row["mechanism"]): row for row in found["rows"]}
    assert [row["steps"] for row in found["rows"]] == [1, 80, 1]
    training = rows[FIRST_STUDY, "sampled gaussian"]
    assert training["epsilon"] == epsilon([TRAINING, TRAINING], DELTA)
    assert (training["unit"], training["noise"]) == ("patient", "secure")
    assert rows[SECOND_STUDY, "gaussian"]["epsilon"] == epsilon([CENTRE], DELTA)
    assert sum(row["epsilon"] for row in found["rows"]) > found["epsilon"]


def test_what_is_left_can_be_spent_and_not_one_step_more(ledger):
    fill(ledger)
    for row in spending(ledger, 12.0, DELTA)["rows"]:
        kind, steps = (CENTRE, row["steps_left"])
        if row["mechanism"] == "sampled gaussian":
            kind = Charge(1.7, 0.26)
        more = Charge(kind.noise_multiplier, kind.sampling_rate, steps)
        one = Charge(kind.noise_multiplier, kind.sampling_rate)
        assert steps > 0
        assert epsilon([*ALL, more], DELTA) <= 12.0 < epsilon([*ALL, more, one], DELTA)
        mine = Charge(kind.noise_multiplier, kind.sampling_rate, row["steps"])
        assert row["left"] == epsilon([mine, more], DELTA) - epsilon([mine], DELTA)


def test_a_budget_that_was_lowered_later_leaves_nothing(ledger):
    fill(ledger)
    found = spending(ledger, 1.0, DELTA)
    assert found["left"] == 0.0
    assert {(row["left"], row["steps_left"]) for row in found["rows"]} == {(0.0, 0)}


def test_what_a_person_reads(ledger, run):
    fill(ledger)
    code, out, _ = run()
    words = " ".join(out.replace("│", " ").split())
    spent = f"{epsilon([TRAINING, TRAINING], DELTA):.3f}"
    assert code == 0
    assert f"{FIRST_STUDY[:12]} sampled gaussian patient everyone secure 80 {spent}" in words
    assert "the [red]coordinator, of the sum over 3 sites" in words
    total = epsilon(ALL, DELTA)
    assert f"all together: ε = {total:.3f} at δ = 0.0001, of 12, {12 - total:.3f} left" in words
    assert "4 entries, the chain is whole" in words
    assert verify(ledger)[-1]["hash"] in out


def test_nothing_was_charged(run, ledger):
    code, out, _ = run()
    assert code == 0
    assert f"{ledger}: nothing was charged yet" in out
    assert "ε = 0.000 at δ = 0.0001, of 12, 12.000 left" in out
    found = json.loads(run("--json")[1])
    assert (found["epsilon"], found["left"], found["rows"]) == (0.0, 12.0, [])
    assert (found["hash"], found["unit"], found["first"]) == (FIRST, None, None)


def test_without_a_budget(site_file, ledger, run):
    fill(ledger)
    site_file.write_text(site_file.read_text().replace("max_epsilon = 12.0\n", ""))
    code, out, _ = run()
    assert code == 0
    assert "policy.max_epsilon is not set: no private study is answered" in out
    found = json.loads(run("--json")[1])
    assert (found["max_epsilon"], found["left"]) == (None, None)
    assert {(row["left"], row["steps_left"]) for row in found["rows"]} == {(None, None)}


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_a_changed_ledger_stops_and_names_the_repair(ledger, run, arguments):
    fill(ledger)
    ledger.write_text(ledger.read_text().replace('"steps":40', '"steps":4', 1))
    code, out, err = run(*arguments)
    assert (code, out) == (3, "")
    assert f"error: {ledger}: line 2: was changed" in err
    assert "hica-client ledger SITE --repair" in err


def test_repair_tells_what_was_kept_and_what_is_spent(ledger, run, monkeypatch):
    fill(ledger)
    ledger.write_text(ledger.read_text().replace('"steps":40', '"steps":4', 1))
    monkeypatch.setenv("LOGNAME", "engineer")
    code, out, _ = run("--repair")
    [copy] = ledger.parent.glob("ledger.damaged-*.jsonl")
    words = " ".join(out.replace("│", " ").split())
    assert code == 0
    assert f"damaged file kept as {copy}" in out
    assert f"repaired by engineer: {ledger}: line 2: was changed" in words
    assert f"ε = {epsilon(ALL, DELTA):.3f}" in words
    code, out, _ = run("--json", "--repair")
    found = json.loads(out)
    assert (code, found["kept"], found["entries"]) == (0, [], 1)
    assert found["repairs"][0]["user"] == "engineer"
    assert found["epsilon"] == epsilon(ALL, DELTA)
    assert [row["steps"] for row in found["rows"]] == [1, 80, 1]


def test_a_repair_that_is_refused_ends_with_the_code_of_data(ledger, run):
    fill(ledger)
    ledger.with_suffix(".head").unlink()
    code, out, err = run("--repair")
    assert (code, out) == (3, "")
    assert "what was spent cannot be proven: audit.jsonl is empty" in err


def test_help_has_an_example(run):
    code, out, _ = run("--help")
    assert code == 0
    assert "Example: hica-client ledger hospital/site.toml --json" in " ".join(out.split())


@pytest.mark.parametrize("limit", [0, 1, 2, 3, 7, 8, 1000])
def test_the_most_that_fits(limit):
    assert _most(lambda count: count <= limit) == limit


def test_no_more_is_looked_for_than_makes_sense():
    assert _most(lambda count: True) == MOST_STEPS - 1
