from dataclasses import replace

import numpy as np
import torch

from hica_simulations.experiments.baselines import coop, prompt_fl


def test_one_site_and_one_round_equal_central_training(prompted):
    alone = replace(prompted, sites=np.zeros_like(prompted.sites))
    shots, labels = torch.from_numpy(alone.unit_shots), torch.from_numpy(alone.labels)
    first = coop.start(alone.prompts, alone.seed)
    central = coop.train(first, alone.prompts, shots, labels, steps=5)
    np.testing.assert_allclose(prompt_fl.fit(alone, 1, 5), central, atol=1e-12)


def test_the_context_is_the_mean_of_the_sites(prompted):
    first = coop.start(prompted.prompts, prompted.seed)
    shots, labels = torch.from_numpy(prompted.unit_shots), torch.from_numpy(prompted.labels)
    own = [coop.train(first, prompted.prompts, shots[p], labels[p], 2) for p in prompted.by_site]
    np.testing.assert_allclose(prompt_fl.fit(prompted, 1, 2), sum(own) / 3, atol=1e-12)
