"""C, 8: what sites have kept is part of the question of a sum, and 10: what they may be sent."""

import shutil

import numpy as np
import pytest
from tests.unit.hica_client.secure_federation import DIM, SITES, Federation

from hica.errors import HicaError, MessageError
from hica.secure_sum.forms import question_of
from hica.steps.alignment import ALIGNMENT
from hica.steps.centre import CENTRE
from hica.steps.clusters import ASSIGN
from hica.steps.evaluation import EVALUATION
from hica.steps.plan import plan
from hica.steps.pretraining import PRETRAINING
from hica.wire.messages import KEPT, Request, SiteError
from hica.wire.records import decode_reply

RATE = {"rate": 1.0}
SUMS = {"sums": ((2, DIM), "float64"), "counts": ((2,), "float64")}


@pytest.fixture
def federation(draw_site, toy_study):
    """Four sites; every one has kept clusters, those of `alone` other ones than the rest."""

    def make(*overrides, alone=()):
        study = toy_study("privacy.secure_aggregation=true", *overrides)
        sites = Federation([draw_site(name) for name in SITES], study)
        sites.kept = {}
        for site in SITES:
            rows = np.eye(3, DIM)[:: -1 if site in alone else 1].copy()
            arrays = {**sites.payload, "centroids": rows}
            settings = {"step": "assign"}
            sites.ask(site, ASSIGN.kind, settings, 0, arrays)
            sites.kept[site] = question_of(Request(ASSIGN.kind, study, 0, settings, arrays))
        return sites

    return make


def pretrain(sites, kept):
    return sites.collect(
        PRETRAINING, sites.spec(), {**RATE, KEPT: kept}, 0, centroids=np.eye(3, DIM)
    )


def test_8_sites_that_were_told_the_same_clusters_are_summed(federation):
    sites = federation()
    sites.begin()
    pretrain(sites, {"pseudo_labels": sites.kept["north"]})
    assert sites.finish(PRETRAINING)["examples"] == 32


def test_8_one_that_was_told_others_takes_no_part_in_the_sum(federation):
    """Clusters of its own make three sites' updates nothing; the sum would be the fourth's."""
    sites = federation(alone=("west",))
    assert sites.kept["west"] != sites.kept["north"]
    sites.begin()
    kept = {"pseudo_labels": sites.kept["north"]}
    words = r"what this site has kept \(pseudo_labels\) is of another question than that of the sum"
    with pytest.raises(SiteError, match=words):
        pretrain(sites, kept)


@pytest.mark.parametrize("told", [None, [], {}, {"pseudo_labels": 3}, {"centre": "0" * 64}])
def test_8_nor_does_one_that_is_not_told_of_which_question_it_is(federation, told):
    sites = federation()
    sites.begin()
    with pytest.raises(SiteError, match="is of another question than that of the sum"):
        pretrain(sites, told)


def test_8_sites_that_are_told_different_questions_do_not_take_the_masks_off(federation):
    """Each is told the question of its own clusters: then it is not the others' sum."""
    sites = federation(alone=("west",))
    sites.begin()
    spec = sites.spec()
    for site in SITES:
        settings = {**RATE, KEPT: {"pseudo_labels": sites.kept[site]}}
        reply = sites.masked(site, PRETRAINING, spec, settings, 0, centroids=np.eye(3, DIM))
        sites.collector.add(site, reply.arrays)
    with pytest.raises(SiteError, match="of what was asked, needed are 3 of 4"):
        sites.finish(PRETRAINING)


def test_8_a_centre_of_its_own_is_kept_of_its_question_too(federation):
    """With `centring = "site"` later answers depend on it."""
    sites = federation("alignment.centring=site")
    sites.begin()
    sites.collect(CENTRE, SUMS)
    sites.finish(CENTRE)
    asked = question_of(Request(CENTRE.kind, sites.study, 0, {}, sites.payload))
    sites.begin("cd" * 16)
    with pytest.raises(SiteError, match=r"has kept \(centre\) is of another question"):
        sites.collect(ALIGNMENT, sites.spec(), {**RATE, KEPT: {"centre": "0" * 64}})
    sites.begin("ef" * 16)
    sites.collect(ALIGNMENT, sites.spec(), {**RATE, KEPT: {"centre": asked}})
    assert sites.finish(ALIGNMENT)["examples"] > 0


def test_8_clusters_depend_on_a_centre_of_its_own_too(federation):
    """Centres of weights of its own at every site, then the same `assign` for all."""
    sites = federation("alignment.centring=site", "pretraining.rounds=2")
    sites.begin()
    asked = {}
    for number, site in enumerate(SITES):
        bank = np.roll(sites.payload["anchor.classes"], number, axis=1)
        sites.masked(site, CENTRE, SUMS, {}, 0, **{"anchor.classes": bank})
        arrays = {**sites.payload, "anchor.classes": bank}
        asked[site] = question_of(Request(CENTRE.kind, sites.study, 0, {}, arrays))
    assert len(set(asked.values())) == 4
    settings = {"step": "assign", KEPT: {"centre": asked["north"]}}
    arrays = {**sites.payload, "centroids": np.eye(3, DIM)[[1, 0, 2]].copy()}
    for site in SITES:
        shutil.rmtree(sites.files[site].parent / "state" / sites.study.sha256[:16] / "answers")
        content = sites.ask(site, ASSIGN.kind, settings, 0, arrays)
        if site == "north":
            assert decode_reply(content, ASSIGN.kind, 0, {}).details == {}
            continue
        with pytest.raises(SiteError, match=r"has kept \(centre\) is of another question"):
            decode_reply(content, ASSIGN.kind, 0, {})


# --- 10 ------------------------------------------------------------------------------------------

TRAPS = {
    "one number": lambda value: (
        value + np.float32(1e-2) * (np.arange(value.size) == 7).reshape(value.shape)
    ),
    "large": lambda value: np.full_like(value, 1e5),
    "zero": lambda value: value * 0 + np.float32(0.5),
}


@pytest.mark.parametrize("trap", TRAPS)
@pytest.mark.parametrize("step", [CENTRE, ALIGNMENT, EVALUATION])
@pytest.mark.parametrize("name", ["tower.adapter.down.weight", "tower.adapter.up.weight"])
def test_10_weights_that_training_cannot_have_brought_about_are_refused_unseen(
    hospital, step, name, trap, monkeypatch
):
    site = hospital()
    weights = {name: TRAPS[trap](site.state().shared[name])}
    monkeypatch.setattr(type(site.session), "examples", None)  # no image is touched
    with pytest.raises(MessageError, match=f"weight '{name}' has moved by .*, training can move"):
        site.asked(step, **weights)


def test_10_the_rate_of_a_round_is_the_plans(hospital):
    site = hospital()
    content = site.state().arrays()
    for rate in (1e-9, 0.5, 1e9, "1.0", None):
        request = Request(ALIGNMENT.kind, site.study, 0, {"rate": rate}, content)
        with pytest.raises(HicaError, match="never asks for"):
            site.answered(request)


def test_10_a_round_is_answered_once(hospital):
    site = hospital()
    site.asked(ALIGNMENT)
    rows = site.state().bank.classes[::-1].copy()
    with pytest.raises(MessageError, match="was answered here to another question"):
        site.asked(ALIGNMENT, arrays={"shared.bank.classes": rows})


def test_10_every_turn_of_an_honest_run_is_within_the_bounds(hospital):
    """Weights that the site itself has trained are what the next round sends."""
    site = hospital()
    shared = site.state().shared
    for number, turn in enumerate(turn for turn in plan(site.study) if turn.step is ALIGNMENT):
        reply = site.asked(ALIGNMENT, number, **shared)
        shared = {name.removeprefix("shared."): v for name, v in reply.arrays.items()}
        assert turn.round == number
