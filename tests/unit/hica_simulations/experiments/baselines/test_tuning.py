import copy

import numpy as np
import torch

from hica_simulations.experiments.baselines.tuning import ENCODED_AT_ONCE, batches, encode, features


def test_features_are_those_of_the_tower_for_every_cut(tuned_last, tuned_lora):
    for episode in (tuned_last, tuned_lora):
        tower = episode.fresh_tower()
        encoded = episode.encoded(tower)
        for found, hidden in (
            (encoded.train, episode.inputs.train),
            (encoded.test, episode.inputs.test),
        ):
            assert len(hidden) > ENCODED_AT_ONCE
            assert found.shape == (len(hidden), 2, tower.tower.dim)
            with torch.no_grad():
                for row, views in zip(found, torch.from_numpy(hidden), strict=True):
                    alone = [features(tower, view[None])[0].numpy() for view in views[:2]]
                    np.testing.assert_allclose(row, alone, atol=1e-10)
        np.testing.assert_array_equal(encoded.labels, episode.inputs.labels)


def test_frozen_blocks_and_trained_blocks_make_the_whole_tower(tuned_last, tuned_lora):
    parts = [episode.encoded(episode.start).train for episode in (tuned_last, tuned_lora)]
    np.testing.assert_allclose(*parts, atol=1e-5)


def test_one_view_stays_one_view(tuned_last):
    one = tuned_last.inputs.test[:, :1]
    assert encode(tuned_last.start, one).shape[1] == 1


def test_a_fresh_tower_is_a_copy(tuned_last):
    tower, before = tuned_last.fresh_tower(), copy.deepcopy(tuned_last.start.state_dict())
    assert list(tower.trainable()) == list(tuned_last.start.trainable())
    with torch.no_grad():
        for weight in tower.parameters():
            weight.add_(1.0)
    after = tuned_last.start.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_pass_shows_every_shot_once_and_in_one_of_its_views():
    shots = torch.arange(7 * 3).view(7, 3)
    seen = list(batches(shots, 4, 4, torch.Generator().manual_seed(0)))
    assert [len(rows) for rows, _ in seen] == [4, 3, 4, 3]
    for first, second in (seen[:2], seen[2:]):
        assert sorted(torch.cat([first[0], second[0]]).tolist()) == list(range(7))
    for rows, shown in seen:
        assert torch.equal(shown // 3, rows)
    assert len({int(number) for _, shown in seen for number in shown}) > 7


def test_batches_follow_the_generator_alone():
    shots = torch.arange(12.0).view(6, 2)
    first, again, other = (
        torch.cat([shown for _, shown in batches(shots, 2, 9, torch.Generator().manual_seed(n))])
        for n in (1, 1, 2)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
