"""What the audit attacks is what a site sends: the client's own answers, number for number."""

import numpy as np
import pytest
import tomli_w
import torch

from hica.method.local_training import Schedule, train
from hica.privacy.noise import GRID, SeededNoise
from hica.privacy.release import units_of
from hica.secure_sum.forms import question_of
from hica.seeds import derived_seed
from hica.steps.alignment import ALIGNMENT
from hica.steps.plan import plan
from hica.steps.prototypes import PROTOTYPES
from hica.steps.state import Bank, State
from hica.wire.messages import Request
from hica_client.app import answer
from hica_client.session import Session
from hica_client.site import load_site
from hica_simulations.experiments.audit.site_side import class_sums, round_change
from hica_simulations.experiments.audit.world import make_start, rows_of
from hica_simulations.site_files import policy_of


@pytest.fixture
def client(world, place, tmp_path):
    """The attacked site as the client knows it, in a private study."""
    site = (place.out / "sites" / "north" / "site.toml").read_text()

    def session(study):
        (tmp_path / "site.toml").write_text(site + tomli_w.dumps({"policy": policy_of(study)}))
        return Session(load_site(tmp_path / "site.toml"), study)

    return session


def asked_at(start, study, step):
    """The request of a step's first turn, with the weights and the centre of a start."""
    start.reset()
    model = start.model
    dtype = study.federation.dtype
    state = State(
        {name: value.numpy().astype(dtype) for name, value in start.weights.items()},
        Bank(*(part.detach().numpy() for part in start.anchor)),
        model.centre.numpy().copy(),
        model.scale.numpy().copy(),
        model.bias.double().numpy(),
    )
    turn = next(turn for turn in plan(study) if turn.step is step)
    return Request(step.kind, study, turn.round, dict(turn.settings), state.arrays())


def noise_of(session, request):
    return SeededNoise(derived_seed("noise", session.name, question_of(request)))


@pytest.fixture
def episode(world):
    return world.hospitals[0].pool.rows(torch.tensor(world.hospitals[0].episode))


@pytest.mark.parametrize("name", ["dp-1", "dp-8"])
def test_noisy_class_sums_are_the_client_s(world, settings, client, name):
    setting = settings[name]
    start = make_start(world, setting.statistics)
    session = client(setting.statistics)
    request = asked_at(start, setting.statistics, PROTOTYPES)
    sent = answer(session, request).arrays
    episode = session.examples("labelled")
    ours = class_sums(
        setting,
        rows_of(start.model, episode),
        episode.labels.numpy(),
        units_of(setting.training, episode.groups),
        noise_of(session, request),
    )
    assert np.array_equal(ours.sums, sent["sums"])
    assert np.array_equal(ours.counts, sent["counts"])


def test_private_updates_are_the_client_s(world, settings, client):
    setting = settings["dp-3"]
    start = make_start(world, setting.training)
    session = client(setting.training)
    request = asked_at(start, setting.training, ALIGNMENT)
    assert request.settings == {"rate": 1.0}
    sent = answer(session, request).arrays
    noise = noise_of(session, request)
    episode, told = session.examples("labelled"), session.told("labelled")
    change = round_change(setting, start, episode, told, noise, torch.Generator())
    assert any(part.abs().max() > 0 for part in change.values())
    for name, value in start.weights.items():
        assert torch.equal(change[name], torch.from_numpy(sent[f"shared.{name}"]) - value)


def test_open_updates_are_plain_training(world, settings, episode):
    setting = settings["none"]
    start = make_start(world, setting.training)
    stage = setting.training.alignment
    change = round_change(
        setting, start, episode, world.units, SeededNoise(0), torch.Generator().manual_seed(7)
    )
    start.reset()
    schedule = Schedule(
        stage.local_epochs,
        stage.batch_size,
        stage.learning_rate,
        stage.bank_learning_rate,
        stage.weight_decay,
        stage.text_pull,
    )
    generator = torch.Generator().manual_seed(7)
    train(start.model, episode, start.loss, schedule, generator, start.anchor)
    for name, value in start.model.shared().items():
        assert torch.equal(change[name], value.detach() - start.weights[name])


def test_the_control_adds_a_tenth_of_the_noise(world, settings, episode):
    rows, labels = np.zeros((9, 4)), episode.labels.numpy()
    units = units_of(settings["dp-1"].training, episode.groups)
    claimed, broken = (
        class_sums(settings[name], rows, labels, units, SeededNoise(1))
        for name in ("dp-1", "control")
    )
    grid = np.abs(claimed.sums).max() * GRID
    assert np.allclose(broken.sums, claimed.sums / 10, atol=grid)
