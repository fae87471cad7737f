import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from flwr.app import Message

from hica.errors import MessageError, StorageError
from hica.method.model import AlignmentModel
from hica.method.site_metrics import SiteMetrics
from hica.privacy.budget import statistics_multiplier
from hica.privacy.noise import SecureNoise
from hica.steps.alignment import ALIGNMENT
from hica.steps.calibration import CALIBRATION
from hica.steps.centre import CENTRE
from hica.steps.clusters import ASSIGN, LLOYD
from hica.steps.evaluation import EVALUATION
from hica.steps.plan import plan
from hica.steps.pretraining import PRETRAINING
from hica.steps.prototypes import PROTOTYPES
from hica.steps.result import RESULT
from hica.steps.state import Bank, State
from hica.text.bank import TextBank
from hica.wire.checkpoint import has_state, load_state
from hica.wire.messages import Kind, Request, SiteError, spec_of
from hica.wire.records import decode_reply, encode_request
from hica_client import app as the_app
from hica_client.app import app, forget_sessions, noise_of, sum_over_of, without_folders
from hica_client.ledger import verify
from hica_client.result import is_whole
from hica_client.session import Session
from hica_client.site import load_site
from hica_simulations.grid import InProcessGrid

DIM = 128
SUMS = {"sums": ((2, DIM), "float64"), "counts": ((2,), "float64")}


class Asker:
    """One site, its ClientApp, and the requests a coordinator would send it."""

    forgets = True
    """Whether the site forgets what it has answered, as no site does: each turn is asked anew."""

    def __init__(self, site_file, study):
        self.site_file, self.study = site_file, study
        session = Session(load_site(site_file), study)
        self.state = session.state
        rows = np.random.default_rng(0).normal(size=(6, DIM)).astype(np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        bank = TextBank.assemble(
            study.class_texts, torch.from_numpy(rows[:2]), torch.from_numpy(rows[2:])
        )
        model = AlignmentModel(session.pipeline.tower, bank, study.alignment.train_text_bank)
        shared = {name: v.detach().numpy().copy() for name, v in model.shared().items()}
        self.payload = State(
            shared=shared,
            bank=Bank(rows[:2], rows[2:]),
            centre=np.zeros((2, DIM), np.float32),
            scale=np.ones((2, DIM), np.float32),
            bias=np.zeros(2),
        ).arrays()
        self.spec = spec_of({f"shared.{name}": value for name, value in shared.items()})

    def message(self, kind, round_=0, settings=None, **arrays):
        """The site's answer as it comes over the wire, in a process just started.

        Arrays are added to those that every request has, or take their place; None takes one away.
        """
        forget_sessions()
        if self.forgets:
            shutil.rmtree(self.state / "answers", ignore_errors=True)
        payload = {} if kind == Kind.CAPABILITIES else {**self.payload, **arrays}
        payload = {name: value for name, value in payload.items() if value is not None}
        request = Request(kind, self.study, round_, settings or {}, payload)
        with InProcessGrid(app, [{"site": str(self.site_file)}], {}) as grid:
            [answer] = grid.send_and_receive([Message(encode_request(request), 1, kind)])
        return answer

    def __call__(self, kind, spec, round_=0, settings=None, **arrays):
        answer = self.message(kind, round_, settings, **arrays)
        assert not answer.has_error(), answer.error.reason
        return decode_reply(answer.content, kind, round_, spec)

    def failure(self, kind, settings=None, **arrays):
        """What the site says it could not do."""
        answer = self.message(kind, settings=settings, **arrays)
        with pytest.raises(SiteError) as error:
            decode_reply(answer.content, kind, 0, self.spec)
        assert error.value.site == "north"
        return str(error.value)


@pytest.fixture
def ask(draw_site, toy_study):
    return Asker(draw_site("north"), toy_study())


def same(one, other):
    return all(np.array_equal(one.arrays[name], other.arrays[name]) for name in one.arrays)


def test_capabilities(ask):
    details = ask(Kind.CAPABILITIES, {}).details
    assert (details["labelled"], details["unlabelled"], details["test"]) == (8, 8, 8)


def test_a_node_without_a_site_says_what_to_set(ask):
    with InProcessGrid(app, [{}], {}) as grid:
        request = encode_request(Request(Kind.CAPABILITIES, ask.study))
        [answer] = grid.send_and_receive([Message(request, 1, "query.capabilities")])
    assert 'set node-config site="/path/to/site.toml"' in answer.error.reason


def test_moments_are_sums_over_the_images_and_the_sites_own_centre_is_kept(ask):
    reply = ask(CENTRE.kind, SUMS)
    assert reply.arrays["counts"][0] == 8
    kept = load_state(ask.state, "centre")[0]["centre"]
    np.testing.assert_allclose(
        kept, reply.arrays["sums"] / reply.arrays["counts"][:, None], rtol=1e-5
    )


def test_moments_are_of_no_more_images_than_the_study_says(draw_site, toy_study):
    reply = Asker(draw_site("north"), toy_study("alignment.centre_images=5"))(CENTRE.kind, SUMS)
    assert reply.arrays["counts"][0] == 5 and reply.examples == 5


def test_only_the_last_request_of_k_means_fixes_the_pseudo_labels(ask):
    spec = {"sums": ((3, DIM), "float64"), "counts": ((3,), "float64")}
    start = ask(LLOYD.kind, spec, settings={"step": "start"})
    centroids = start.arrays["sums"] / start.arrays["counts"][:, None]
    assert start.arrays["counts"].sum() == 8
    ask(LLOYD.kind, spec, settings={"step": "lloyd"}, centroids=centroids)
    assert not has_state(ask.state, "pseudo_labels")
    assert ask(LLOYD.kind, {}, settings={"step": "assign"}, centroids=centroids).examples == 0
    labels = load_state(ask.state, "pseudo_labels")[0]["labels"]
    lloyd = ask(LLOYD.kind, spec, settings={"step": "lloyd"}, centroids=centroids)
    assert np.bincount(labels, minlength=3).tolist() == lloyd.arrays["counts"].tolist()


def test_pretraining_goes_on_after_a_restart_of_the_site_but_not_without_its_state(ask):
    centroids = np.random.default_rng(1).normal(size=(3, DIM)) / DIM**0.5 / 4
    arguments = {"settings": {"rate": 1.0}, "centroids": centroids}
    assert "pseudo_labels: missing" in ask.failure(PRETRAINING.kind, **arguments)
    ask(LLOYD.kind, {}, settings={"step": "assign"}, centroids=centroids)
    reply = ask(PRETRAINING.kind, ask.spec, **arguments)
    assert reply.examples == 8
    assert not np.array_equal(
        reply.arrays["shared.tower.adapter.up.weight"],
        ask.payload["shared.tower.adapter.up.weight"],
    )
    for file in ask.state.glob("pseudo_labels*"):
        file.unlink()
    assert "state folder of north was emptied" in ask.failure(PRETRAINING.kind, **arguments)


def test_a_round_repeats_to_the_bit(ask):
    first, again = (ask(ALIGNMENT.kind, ask.spec, 1, {"rate": 0.5}) for _ in range(2))
    assert same(first, again) and first.details == again.details
    assert first.examples == 8
    for name in ("shared.tower.adapter.up.weight", "shared.bank.classes", "shared.bank.findings"):
        assert not np.array_equal(first.arrays[name], ask.payload[name])


def test_prototypes_are_class_sums_of_unit_vectors(ask):
    reply = ask(PROTOTYPES.kind, SUMS)
    assert reply.arrays["counts"].tolist() == [4, 4]
    norms = np.linalg.norm(reply.arrays["sums"], axis=1)
    assert (norms > 0).all() and (norms <= 4 + 1e-6).all()


def test_a_newton_step_sums_over_the_episode_at_the_intercepts_sent(ask):
    spec = {"gradient": ((2,), "float64"), "hessian": ((2, 2), "float64")}
    level, tilted = (
        ask(CALIBRATION.kind, spec, 1, bias=np.array(b)) for b in ([0.0, 0.0], [3.0, -3.0])
    )
    assert level.examples == tilted.examples == 8
    assert tilted.arrays["gradient"][0] > level.arrays["gradient"][0] + 1  # class 0 favoured more
    np.testing.assert_allclose(tilted.arrays["gradient"].sum(), 0.0, atol=1e-6)


def test_intercepts_move_predictions(ask):
    all_first, all_second = (
        ask(EVALUATION.kind, {}, 1, bias=np.array(b)).details
        for b in ([50.0, -50.0], [-50.0, 50.0])
    )
    assert all_first["confusion"] == [[4, 0], [4, 0]]
    assert all_second["confusion"] == [[0, 4], [0, 4]]


def test_a_site_that_knows_its_prevalence_predicts_for_its_own_patients(draw_site, toy_study):
    path = draw_site("north", images=40)
    study = toy_study("alignment.shots=3")
    plain = Asker(path, study)(EVALUATION.kind, {}, 1, bias=np.array([50.0, -50.0])).details
    assert plain["confusion"] == [[10, 0], [10, 0]]
    known = "[data]\nprevalence = { round = 0.2, square = 0.8 }\n"
    path.write_text(path.read_text().replace("[data]\n", known))
    ask = Asker(path, toy_study("alignment.shots=3", "study.name=another"))
    reply = ask(EVALUATION.kind, {}, 1, bias=np.array([50.0, -50.0]))
    assert reply.arrays == {}
    kept = load_state(ask.state, "predictions")[0]["probabilities"]
    # Test images are like those beyond the shots, of which 4 - 3 of 20 - 6 are round.
    assert kept[:, 0].mean() == pytest.approx(1 / 14, abs=0.05)
    again = ask(EVALUATION.kind, {}, 1, bias=np.array([-50.0, 50.0]))
    assert again.details["confusion"] == reply.details["confusion"]  # its own intercepts, not ours


def test_evaluation_tells_metrics_and_nothing_else(ask):
    reply = ask(EVALUATION.kind, {})
    metrics = SiteMetrics.from_dict(reply.details, 2, "north")
    assert (metrics.n, metrics.counts) == (8, (4, 4))
    assert reply.arrays == {}


def test_weights_that_do_not_fit_are_refused_in_words(ask):
    wrong = np.zeros((3, DIM), np.float32)
    reason = ask.failure(ALIGNMENT.kind, {"rate": 1.0}, **{"shared.bank.classes": wrong})
    assert "'bank.classes' has shape (3, 128)" in reason
    unknown = np.zeros(1, np.float32)
    reason = ask.failure(ALIGNMENT.kind, {"rate": 1.0}, **{"shared.tower.backdoor": unknown})
    assert "weights do not fit the study's model: ['tower.backdoor'] differ" in reason


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bias": None}, "train.align: arrays missing or not asked for: ['bias']"),
        ({"extra": np.zeros(1)}, "train.align: arrays missing or not asked for: ['extra']"),
        (
            {"centre": np.zeros((2, 3), np.float32)},
            "array 'centre' has shape (2, 3) and type float32, expected (2, 128) and float32",
        ),
        ({"bias": np.array([0.0, 2e6])}, "array 'bias' holds values from 0 to 2e+06, possible are"),
    ],
)
def test_arrays_that_are_not_as_declared_are_refused_and_no_image_is_prepared(
    ask, monkeypatch, change, words
):
    def never(*_):
        raise AssertionError("an image was looked at")

    monkeypatch.setattr(Session, "examples", never)
    assert words in ask.failure(ALIGNMENT.kind, {"rate": 1.0}, **change)


@pytest.mark.parametrize(
    ("round_", "settings", "words"),
    [
        (0, {"rate": 0.7}, "train.align, round 1, with {'rate': 0.7}"),
        (0, {}, "train.align, round 1, with {}"),
        (2, {"rate": 1.0}, "train.align, round 3, with {'rate': 1.0}"),
        (
            0,
            {"rate": 1.0, "epochs": 100},
            "train.align, round 1, with {'rate': 1.0, 'epochs': 100}",
        ),
    ],
)
def test_a_request_that_is_no_turn_of_the_plan_is_not_answered(ask, round_, settings, words):
    answer = ask.message(ALIGNMENT.kind, round_, settings)
    with pytest.raises(SiteError) as error:
        decode_reply(answer.content, ALIGNMENT.kind, round_, ask.spec)
    assert f"a run of study {ask.study.sha256[:12]} never asks for {words}" in str(error.value)
    assert "so it was not approved with it: nothing leaves" in str(error.value)


@pytest.mark.parametrize(
    ("content", "words"), [(None, "no such weights file"), (b"other", "expected sha256 aaaa")]
)
def test_missing_and_wrong_weights_are_a_reason(
    draw_site, toy_study, tmp_path, caplog, content, words
):
    study = toy_study(
        "model.image=timm/test_efficientnet",
        "model.checkpoint=weights.safetensors",
        f"model.sha256={'a' * 64}",
    )
    if content is not None:
        (tmp_path / "weights.safetensors").write_bytes(content)
    nodes = [{"site": str(draw_site("north"))}]
    with InProcessGrid(app, nodes, {}) as grid:
        request = encode_request(Request(Kind.CAPABILITIES, study))
        [answer] = grid.send_and_receive([Message(request, 1, "query.capabilities")])
    with pytest.raises(SiteError, match="not those that the study names or pins") as error:
        decode_reply(answer.content, Kind.CAPABILITIES, 0, {})
    assert "WeightsError" in str(error.value)
    assert str(tmp_path) not in str(error.value)
    assert words in caplog.text and words not in str(error.value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/data/north/manifest.csv: line 3", "manifest.csv: line 3"),
        ("image '/data/x/d.png' is cut short", "image 'd.png' is cut short"),
        ("no path here, 1/2", "no path here, 1/2"),
    ],
)
def test_folders_stay_at_the_site(text, shown):
    assert without_folders(text) == shown


def test_studies_are_told_apart_at_one_site(ask):
    reply = ask(Kind.CAPABILITIES, {})
    table = {**ask.study.model_dump(), "alignment": {"shots": 2}}
    fewer = replace(
        Request(Kind.CAPABILITIES, ask.study), study=type(ask.study).model_validate(table)
    )
    with InProcessGrid(app, [{"site": str(ask.site_file)}], {}) as grid:
        [answer] = grid.send_and_receive([Message(encode_request(fewer), 1, fewer.kind)])
    other = decode_reply(answer.content, Kind.CAPABILITIES, 0, {})
    assert (reply.details["labelled"], other.details["labelled"]) == (8, 4)


PRIVATE = ["privacy.epsilon=3.0", "privacy.delta=1e-5", "calibration.rounds=0"]


@pytest.mark.parametrize(
    ("study", "kind"),
    [
        ([*PRIVATE, "privacy.mechanism=dp-sgd"], CALIBRATION.kind),
        ([*PRIVATE, "privacy.mechanism=dp-sgd", "pretraining.rounds=0"], LLOYD.kind),
        ([*PRIVATE, "privacy.mechanism=prototypes", "pretraining.rounds=0"], ALIGNMENT.kind),
        (["calibration.rounds=0"], CALIBRATION.kind),
        (["alignment.centring=none"], CENTRE.kind),
        ([], Kind.KEYS),
    ],
)
def test_what_a_run_of_the_study_never_asks_for_is_not_answered(draw_site, toy_study, study, kind):
    ask = Asker(draw_site("north"), toy_study(*study))
    assert f"never asks for {kind}" in ask.failure(kind)
    assert not load_site(ask.site_file).ledger.exists()


# --- A private study -----------------------------------------------------------------------------


@pytest.fixture
def ask_privately(draw_site, toy_study):
    """A site that has a budget, asked in a private study; more settings of its policy."""

    def ask_privately(*overrides, policy='max_epsilon = 9.0\nnoise = "seeded"'):
        path = draw_site("north")
        path.write_text(path.read_text() + f"[policy]\n{policy}\n")
        study = toy_study(*PRIVATE, "privacy.mechanism=dp-sgd", "pretraining.rounds=0", *overrides)
        ask = Asker(path, study)
        ask.forgets = False
        return ask

    return ask_privately


def test_what_is_spent_is_in_the_ledger_of_the_site(ask_privately):
    ask = ask_privately("privacy.unit=image")
    ask(CENTRE.kind, SUMS)
    [entry] = verify(load_site(ask.site_file).ledger)
    expected = {
        "study": ask.study.sha256,
        "round": 0,
        "kind": "train.moments",
        "mechanism": "gaussian",
        "unit": "image",
        "holds": "everyone",
        "noise": "seeded",
        "sampling_rate": 1.0,
        "steps": 1,
        "audited": 0,
    }
    assert {name: entry[name] for name in expected} == expected
    assert entry["noise_multiplier"] == statistics_multiplier(ask.study)
    assert len(entry["question"]) == 64


def test_what_would_pass_the_site_s_own_limit_is_not_charged(ask_privately):
    ask = ask_privately(policy="max_epsilon = 0.1")
    assert "beyond policy.max_epsilon = 0.1" in ask.failure(CENTRE.kind)
    assert not verify(load_site(ask.site_file).ledger)
    assert not list(ask.state.glob("answers/*"))


@pytest.mark.parametrize("noise", ["secure", "seeded"])
def test_the_same_question_has_the_same_answer_and_costs_nothing_more(ask_privately, noise):
    ask = ask_privately(policy=f'max_epsilon = 9.0\nnoise = "{noise}"')
    first, again = (ask(CENTRE.kind, SUMS) for _ in range(2))  # each time a new process
    for name in SUMS:
        np.testing.assert_array_equal(first.arrays[name], again.arrays[name])
    assert first.examples == again.examples
    assert len(verify(load_site(ask.site_file).ledger)) == 1


def test_another_question_in_the_place_of_one_that_was_answered_is_refused(ask_privately):
    ask = ask_privately()
    ask(CENTRE.kind, SUMS)
    other = {"anchor.classes": ask.payload["anchor.classes"][::-1].copy()}
    words = ask.failure(CENTRE.kind, **other)
    assert "centre was answered here to another question, and each turn of a study is" in words
    assert len(verify(load_site(ask.site_file).ledger)) == 1


@pytest.mark.parametrize("point", ["before it is charged", "after it is charged"])
def test_an_answer_that_was_kept_and_did_not_leave_is_charged_once(
    ask_privately, monkeypatch, point
):
    """The process is killed between answer and charge, or between charge and reply."""
    ask = ask_privately()
    real = the_app.charge

    def killed(*arguments):
        if point == "after it is charged":
            real(*arguments)
        raise StorageError("killed")

    monkeypatch.setattr(the_app, "charge", killed)
    assert "killed" in ask.failure(CENTRE.kind)
    monkeypatch.setattr(the_app, "charge", real)
    ask(CENTRE.kind, SUMS)
    assert len(verify(load_site(ask.site_file).ledger)) == 1


def test_where_the_answer_is_lost_it_is_charged_again(ask_privately):
    """New noise is a new release, whatever the question."""
    ask = ask_privately("alignment.rounds=1")
    ask(CENTRE.kind, SUMS)
    shutil.rmtree(ask.state)
    ask(CENTRE.kind, SUMS)
    assert len(verify(load_site(ask.site_file).ledger)) == 2


def test_the_site_decides_where_noise_comes_from(draw_site, toy_study):
    study = toy_study(*PRIVATE, "privacy.mechanism=dp-sgd")
    site = load_site(draw_site("north"))
    assert isinstance(noise_of(Session(site, study), "q"), SecureNoise)
    seeded = site.model_copy(update={"policy": site.policy.model_copy(update={"noise": "seeded"})})
    session = Session(seeded, study)
    drawn = [noise_of(session, name).normal((5,)).tolist() for name in ("q", "q", "r")]
    assert drawn[0] == drawn[1] != drawn[2]  # as the question is the same, or another


def test_noise_is_shared_out_only_where_a_sum_is_all_that_is_seen(draw_site, toy_study):
    secure = ["privacy.secure_aggregation=true", "privacy.noise=distributed"]
    study = toy_study(*PRIVATE, "privacy.mechanism=dp-sgd", *secure)
    session = Session(load_site(draw_site("north")), study)
    turns = {turn.step: turn for turn in plan(study)}
    assert sum_over_of(session, turns[EVALUATION]) is None
    assert sum_over_of(session, turns[ASSIGN]) is None
    with pytest.raises(MessageError, match="takes no part in that session of a secure sum"):
        sum_over_of(session, turns[CENTRE])


# --- Every turn once -----------------------------------------------------------------------------


def test_a_turn_of_a_study_without_privacy_is_answered_once_too(ask):
    ask.forgets = False
    bank = np.ascontiguousarray(ask.payload["shared.bank.classes"][::-1])
    settings = turn_settings(ask.study, ALIGNMENT)
    first = ask(ALIGNMENT.kind, ask.spec, settings=settings)
    again = ask(ALIGNMENT.kind, ask.spec, settings=settings)
    assert first.details == again.details
    for name, value in first.arrays.items():
        np.testing.assert_array_equal(value, again.arrays[name])
    words = ask.failure(ALIGNMENT.kind, settings, **{"shared.bank.classes": bank})
    assert "alignment 1/2 was answered here to another question" in words


def test_lloyd_steps_are_as_many_questions_as_the_plan_has_of_them(ask):
    ask.forgets = False
    settings = {"step": "lloyd"}
    spec = {"sums": ((3, DIM), "float64"), "counts": ((3,), "float64")}
    rows = np.eye(DIM)[:12].reshape(4, 3, DIM)
    for centroids in (rows[0], rows[1], rows[0]):  # two in the plan
        ask(LLOYD.kind, spec, settings=settings, centroids=centroids)
    assert "clusters was answered" in ask.failure(LLOYD.kind, settings, centroids=rows[2])


# --- The end -------------------------------------------------------------------------------------


@pytest.fixture
def ask_to_the_end(ask):
    """A site that remembers, and has answered a turn of the study."""
    ask.forgets = False
    ask(CENTRE.kind, SUMS)
    return ask


@pytest.mark.parametrize("lost", ["result.json", "model.safetensors", "damaged"])
def test_a_result_that_was_lost_is_written_again_when_the_end_is_told_again(ask_to_the_end, lost):
    ask = ask_to_the_end
    ask(RESULT.kind, {})
    before = (ask.state / "result.json").read_bytes()
    assert is_whole(load_site(ask.site_file), ask.study)
    ask(RESULT.kind, {})
    assert (ask.state / "result.json").read_bytes() == before
    if lost == "damaged":
        (ask.state / "model.safetensors").write_text("x")
    else:
        (ask.state / lost).unlink()
    ask(RESULT.kind, {})
    assert is_whole(load_site(ask.site_file), ask.study)


def test_the_end_of_a_study_that_has_not_begun_here_is_refused(ask):
    assert "this site has answered nothing of this study" in ask.failure(RESULT.kind)
    assert not (ask.state / "result.json").exists()


def test_after_the_end_nothing_is_answered_that_was_not_before(ask_to_the_end):
    ask = ask_to_the_end
    ask(RESULT.kind, {})
    for kind, settings in (
        (ALIGNMENT.kind, turn_settings(ask.study, ALIGNMENT)),
        (EVALUATION.kind, {}),
    ):
        assert "the study is over at this site" in ask.failure(kind, settings)
    ask(CENTRE.kind, SUMS)


def turn_settings(study, step):
    return dict(next(turn.settings for turn in plan(study) if turn.step is step))
