"""What reviewers decide between two rounds, in what the next one is trained on."""

import pytest
import torch

import hica.method.local_training
import hica.privacy.release
from hica_client.review import clusters, labels
from hica_client.review.desk import Desk
from hica_client.site import load_site

ROUNDS = ("federation.quorum=1", "pretraining.rounds=2", "alignment.rounds=2", "alignment.shots=2")
PRIVATE = (
    "privacy.mechanism=dp-sgd",
    "privacy.epsilon=8.0",
    "privacy.delta=1e-3",
    "calibration.rounds=0",
    "alignment.centring=none",
)


@pytest.fixture
def taught(monkeypatch):
    """Groups and labels of the images of each round; `before[ROUND]` is called before it."""
    lessons, before = [], {}

    def spied(train):
        def spy(model, *arguments, **named):
            examples = named.get("examples") or arguments[0]
            if named.get("units") != []:
                lessons.append((set(examples.groups), examples.labels))
            found = train(model, *arguments, **named)
            before.get(len(lessons), lambda: None)()
            return found

        return spy

    for module, name in (
        (hica.method.local_training, "train"),
        (hica.privacy.release, "train_privately"),
    ):
        monkeypatch.setattr(module, name, spied(getattr(module, name)))
    return lessons, before


def patients(rows):
    return {row.record.patient_id for row in rows}


def groups(rows):
    return {row.record.group for row in rows}


def test_a_rejected_cluster_and_a_corrected_label_are_in_the_next_rounds(
    draw_site, federate, toy_study, taught
):
    site = load_site(draw_site("north"))
    study = toy_study(*ROUNDS)
    lessons, before = taught
    gone, corrected = set(), []

    def reject():
        desk = Desk(site, study, "anna")
        found = clusters.clusters(desk).rows
        number = max(found, key=lambda each: len(found[each]))
        gone.update(groups(found[number]))
        clusters.judge(desk, number, "reject", "")

    def correct():
        desk = Desk(site, study, "anna")
        shots = (row for row in desk.rows.values() if row.role == "shot")
        row = next(row for row in shots if row.record.label == "round")
        labels.give_label(desk, row.key, "square")
        corrected.append(row.record.group)

    before[1], before[3] = reject, correct
    federate(study, [site.file])
    everybody, rest, shots, mended = (names for names, _ in lessons[:4])
    assert gone and gone < everybody
    assert rest == everybody - gone
    assert corrected[0] in shots and mended == shots
    assert torch.bincount(lessons[2][1]).tolist() == [2, 2]
    assert torch.bincount(lessons[3][1]).tolist() == [1, 3]


def test_a_private_study_goes_on_without_a_rejected_image_and_counts_as_before(
    draw_site, federate, toy_study, taught
):
    site = load_site(draw_site("north"))
    study = toy_study(*ROUNDS, *PRIVATE)
    lessons, before = taught
    gone = []

    def reject():
        desk = Desk(site, study, "anna")
        row = next(row for row in desk.rows.values() if row.role == "unlabelled")
        labels.judge_image(desk, row.key, "reject")
        gone.append(row.record.group)
        found = clusters.clusters(desk)
        clusters.judge(desk, next(iter(found.rows)), "reject", "")

    before[1] = reject
    with site.file.open("a") as file:
        file.write('[policy]\nmin_count = 3\nmax_epsilon = 9\ndelta = 1e-3\nnoise = "seeded"\n')
    federate(study, [site.file])
    assert lessons[1][0] == lessons[0][0] - {*gone}
