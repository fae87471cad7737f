from dataclasses import replace

import numpy as np

from hica_simulations.experiments.baselines import fed_norm, fed_probe


def test_one_site_is_the_federated_probe(episode):
    alone = replace(
        episode, sites=np.zeros_like(episode.sites), test_sites=np.zeros_like(episode.test_sites)
    )
    np.testing.assert_array_equal(fed_norm.fit_predict(alone), fed_probe.fed_avg(alone))


def test_a_machines_gain_and_offset_do_not_matter(episode):
    gain, offset = np.array([1.0, 5.0, 0.2]), np.array([0.0, -30.0, 4.0])

    def seen(features, sites):
        return features * gain[sites][:, None, None] + offset[sites][:, None, None]

    shifted = replace(
        episode,
        train=seen(episode.train, episode.sites),
        test=seen(episode.test, episode.test_sites),
    )
    found = fed_norm.fit_predict(shifted)
    np.testing.assert_allclose(found, fed_norm.fit_predict(episode), atol=1e-3)
    assert np.abs(fed_probe.fed_avg(shifted) - fed_probe.fed_avg(episode)).max() > 0.1


def test_a_site_without_shots_is_normalised_by_all_shots(episode):
    kept = episode.sites != 1
    fewer = replace(
        episode, train=episode.train[kept], labels=episode.labels[kept], sites=episode.sites[kept]
    )
    alone = replace(fewer, test_sites=np.full_like(fewer.test_sites, 1))
    there = fewer.test_sites == 1
    # A product of fewer rows may round otherwise, as the machine's kernels do.
    np.testing.assert_allclose(
        fed_norm.fit_predict(fewer)[there], fed_norm.fit_predict(alone)[there], rtol=1e-12
    )
