"""What sites have for themselves: the same as without others, and nothing of it leaves."""

import json

import numpy as np
import pytest

from hica.method.shrinkage import ClassMeans, own_share
from hica.steps.alone import alone
from hica.steps.personal import ALONE_MODEL, LEAST, LOGITS, OWN, PERSONAL, PERSONAL_MODEL
from hica.steps.predictions import probabilities_of
from hica.steps.prototypes import MEANS
from hica.study import changed
from hica_client.ledger import spendings, verify
from hica_client.result import result_file
from hica_client.session import Session
from hica_client.site import load_site
from hica_server.state import RunState

CHANGES = ("personal.epochs=2", "pretraining.recluster_every=1", "calibration.rounds=2")
PRIVATE = (
    "privacy.mechanism=dp-sgd",
    "privacy.epsilon=8.0",
    "privacy.delta=1e-3",
    "calibration.rounds=0",
    "federation.min_count=1",
)


def kept_at(path, study):
    return Session(load_site(path), study)


@pytest.mark.parametrize("centring", ["global", "site"])
def test_training_alone_is_the_federation_of_one_to_the_bit(
    federate, draw_site, toy_study, centring
):
    study = toy_study(*CHANGES, f"alignment.centring={centring}")
    sites = [draw_site("north"), draw_site("south", labelled=True)]
    federate(study, sites, "together")
    kept = kept_at(sites[0], study).kept(LOGITS)
    lone = alone(study)
    federate(changed(lone, {"federation": {"quorum": 1}}), sites[:1], "one")
    expected = kept_at(sites[0], lone).kept("predictions")["probabilities"]
    np.testing.assert_array_equal(probabilities_of(kept["alone"]), expected)


def test_what_joining_gave_is_told_and_the_personal_model_is_not(
    federate, draw_site, toy_study, tmp_path
):
    study = toy_study(*CHANGES, "federation.min_count=1")
    sites = [draw_site("north"), draw_site("south"), draw_site("east", labelled=False)]
    result = federate(study, sites)
    assert result["gain"].keys() == {"north", "south"}
    for name, gain in result["gain"].items():
        assert gain.keys() == {"alone", "shared", "personal", "difference"}
        assert gain["personal"]["auroc"] == result["per_site"][name]["auroc"]
    learnt = RunState.load(tmp_path / "run", study.sha256).learnt
    assert learnt.sites == 2 and np.abs(learnt.means).max() > 0
    for path in sites[:2]:
        session = kept_at(path, study)
        own = ClassMeans(**session.kept(MEANS))
        assert session.kept(OWN)["share"] == [max(LEAST, own_share(own, learnt.means, 2))]
        for name in (PERSONAL_MODEL, ALONE_MODEL):
            assert session.kept(name).keys() >= {"bank.classes", "centre", "bias"}
    (entry,) = (each for each in result["rounds"] if each["stage"] == PERSONAL.name)
    assert entry["participants"] == ["north", "south"]
    assert entry["bytes_up"] < 1000 < entry["bytes_down"]


def test_a_private_study_has_personal_models_that_no_patient_pays_for_and_nobody_hears_of(
    tmp_path, federate_in, draw_site_below, toy_study
):
    told = []
    for epochs in (0, 2):
        root = tmp_path / f"{epochs} epochs"
        root.mkdir()
        sites = [draw_site_below(root, name) for name in ("north", "south")]
        for path in sites:
            text = path.read_text().split("[policy]")[0]
            policy = '[policy]\nmax_epsilon = 9.0\ndelta = 1e-3\nnoise = "seeded"\n'
            path.write_text(text + policy)
            (path.parent / "2.png").write_bytes(b"no image")  # which nobody must notice
        study = toy_study(*PRIVATE, f"personal.epochs={epochs}")
        result = federate_in(root / "run", study, sites)
        assert result["gain"] == {}
        assert all(not entry["refused"] for entry in result["rounds"])
        for path in sites:
            site = load_site(path)
            kept = json.loads(result_file(site, study.sha256).read_text())
            own = [kept[name] is not None for name in ("gain", "own_share")]
            assert own == [bool(epochs)] * 2  # the site's own people see it
        told.append([len(spendings(verify(load_site(path).ledger))) for path in sites])
    assert told[0] == told[1] and min(told[0]) > 0


def test_without_personal_rounds_sites_predict_with_the_shared_model(
    federate, draw_site, toy_study
):
    study = toy_study(*CHANGES, "personal.epochs=0")
    sites = [draw_site("north"), draw_site("south")]
    assert federate(study, sites)["gain"] == {}
    assert not kept_at(sites[0], study).has_kept(PERSONAL_MODEL)
