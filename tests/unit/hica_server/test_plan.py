import pytest
from hica_server.plan import make_plan

EVERY = ["alignment.rounds=2", "pretraining.rounds=2", "calibration.rounds=2"]


class Recorder:
    """Stands for a coordinator and notes what it is told to do."""

    def __init__(self):
        self.done = []

    def __getattr__(self, name):
        return lambda *arguments: self.done.append((name, *arguments))


def walk(study):
    recorder = Recorder()
    for step in make_plan(study):
        step.run(recorder)
    return recorder.done


FIRST = [("moments", 0), ("evaluate", 0, "zero_shot")]
TRAINING = [("align", 0), ("moments", 2), ("align", 1), ("moments", 3)]
END = ("evaluate", 1, "final")
LAST = [*TRAINING, ("calibrate", 0), ("calibrate", 1), END]


def test_both_stages(make_study):
    stage_1 = [("cluster", 0), ("pretrain", 0), ("pretrain", 1), ("moments", 1)]
    assert walk(make_study(*EVERY)) == [*FIRST, *stage_1, ("prototypes", 0), *LAST]


def test_without_stage_1(make_study):
    study = make_study(*EVERY, "pretraining.rounds=0")
    assert walk(study) == [*FIRST, ("prototypes", 0), *LAST]


def test_where_nothing_is_centred_no_mean_is_asked_for(make_study):
    done = walk(make_study(*EVERY, "alignment.centring=none"))
    others = [call for call in walk(make_study(*EVERY)) if call[0] != "moments"]
    assert done == others


def test_intercepts_can_be_left_out(make_study):
    study = make_study(*EVERY, "pretraining.rounds=0", "calibration.rounds=0")
    assert walk(study) == [*FIRST, ("prototypes", 0), *TRAINING, END]


@pytest.mark.parametrize("change", ["train_text_bank=false", "bank_start=text"])
def test_a_bank_that_is_fixed_or_starts_at_the_texts_needs_no_prototypes(make_study, change):
    study = make_study(*EVERY, "pretraining.rounds=0", f"alignment.{change}")
    assert walk(study) == [*FIRST, *LAST]


@pytest.mark.parametrize(
    ("every", "clustered_before"), [(0, [0]), (1, [0, 1, 2, 3, 4]), (2, [0, 2, 4]), (4, [0, 4])]
)
def test_re_clustering_is_done_on_schedule(make_study, every, clustered_before):
    overrides = ["pretraining.rounds=5", f"pretraining.recluster_every={every}"]
    done = walk(make_study(*overrides))
    assert [number for name, number, *_ in done if name == "cluster"] == clustered_before
    for number in clustered_before:
        at = done.index(("cluster", number))
        assert done[at + 1] == ("pretrain", number)


def test_steps_are_named_for_people(make_study):
    names = [step.name for step in make_plan(make_study(*EVERY))]
    assert names == [
        "centre",
        "zero-shot evaluation",
        "clusters",
        "pretraining 1/2",
        "pretraining 2/2",
        "centre",
        "prototypes",
        "alignment 1/2",
        "centre",
        "alignment 2/2",
        "centre",
        "calibration 1/2",
        "calibration 2/2",
        "evaluation",
    ]


def test_the_zero_shot_evaluation_can_be_left_out(make_study):
    names = [step.name for step in make_plan(make_study(*EVERY), zero_shot=False)]
    assert names[:2] == ["centre", "clusters"]


def test_no_two_exchanges_of_a_kind_share_a_number(make_study):
    done = walk(make_study("pretraining.rounds=3", "alignment.rounds=4"))
    assert len({(name, number) for name, number, *_ in done}) == len(done)


PRIVATE = ["privacy.epsilon=3.0", "privacy.delta=1e-3", "calibration.rounds=0"]


def test_a_private_study_estimates_its_centre_once(make_study):
    study = make_study(*EVERY, *PRIVATE, "privacy.mechanism=dp-sgd")
    stage_1 = [("cluster", 0), ("pretrain", 0), ("pretrain", 1)]
    assert walk(study) == [*FIRST, *stage_1, ("prototypes", 0), ("align", 0), ("align", 1), END]


def test_private_prototypes_are_all_that_is_asked_for(make_study):
    study = make_study(*PRIVATE, "privacy.mechanism=prototypes", "pretraining.rounds=0")
    assert walk(study) == [("evaluate", 0, "zero_shot"), ("prototypes", 0), END]
