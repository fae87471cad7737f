import numpy as np
import pytest
import torch

from hica.errors import DataError
from hica_simulations.experiments.audit.world import CANARIES, make_start, make_world
from hica_simulations.place import Place
from hica_simulations.scenario import load_scenario


def test_the_attacked_site_does_not_hold_who_is_looked_for(world):
    first = world.hospitals[0]
    assert world.canaries.groups == CANARIES
    assert len(first.episode) == world.units == 9
    assert len(first.pool) == len(world.hospitals[1].pool) - 1
    for canary in world.canaries.hidden:
        assert not any(torch.equal(canary, image) for image in first.pool.hidden)


def test_the_episode_is_the_client_s(world):
    ours = world.hospitals[0].pool.rows(torch.tensor(world.hospitals[0].episode))
    theirs = world.session.examples("labelled")
    assert ours.groups == theirs.groups
    assert torch.equal(ours.hidden, theirs.hidden)


def test_fresh_episodes_hold_as_many_of_each_class(world):
    hospital = world.hospitals[0]
    drawn = [hospital.fresh(np.random.default_rng(seed)) for seed in range(2)]
    assert drawn[0] != drawn[1]
    for rows in drawn:
        assert len(set(rows)) == 9
        assert hospital.pool.labels[rows].bincount().tolist() == [3, 3, 3]


def test_the_odd_patient_s_label_is_the_class_it_looks_least_like(world):
    start = make_start(world, world.study)
    start.reset()
    start.model.centre.zero_()
    from hica_simulations.experiments.audit.world import rows_of

    scores = rows_of(start.model, world.canaries)[1] @ start.model.unit_bank()[0].T.detach().numpy()
    assert int(world.canaries.labels[1]) == int(scores.argmin())


def test_gradients_are_unit_vectors_and_reset_puts_the_start_back(world, settings):
    start = make_start(world, settings["dp-1"].training)
    for gradient in start.gradients:
        norm = torch.stack([part.double().norm() for part in gradient.values()]).norm()
        assert float(norm) == pytest.approx(1.0, abs=1e-5)
    with torch.no_grad():
        for value in start.model.shared().values():
            value += 1.0
    start.reset()
    for name, value in start.model.shared().items():
        assert torch.equal(value, start.weights[name])


def test_a_site_without_a_patient_to_spare_is_refused(small_audit, place, tmp_path):
    changes = ["text.epochs=0", "alignment.shots=8", "simulation.phantoms.per_class=10"]
    there = Place(place.data, tmp_path / "run", place.cache, "cpu")
    with pytest.raises(DataError, match=r"north: .* lower alignment.shots"):
        make_world(load_scenario(small_audit, changes), there)
