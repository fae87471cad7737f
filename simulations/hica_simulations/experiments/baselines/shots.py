"""Baselines on the sites' shots, run on the sites of a simulation.

They use exactly the episodes the sites drew, and are tested at the sites as all other methods are.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from hica.method.evaluation import site_metrics
from hica.method.prevalence import matching_intercepts
from hica.method.site_metrics import SiteMetrics
from hica.method.stratified import combine
from hica.study import Changes, Study, changed
from hica_client.session import Session
from hica_client.site import load_site
from hica_simulations.experiments.baselines import gathering, registry
from hica_simulations.experiments.baselines.episode import Doubles, Episode, Floats
from hica_simulations.experiments.baselines.prompts import prompts_of
from hica_simulations.experiments.baselines.tuning import TunedEpisode
from hica_simulations.predictions import Predictions, joined, of_site

Texts = Callable[[Study, int], Floats]
"""Class texts [C, D] of a study's text bank for a joint space of width D."""


SMALLEST = 1e-12
"""Least probability whose logarithm is taken."""


class ShotBaselines:
    """All baselines on the shots of some sites; what several of them need is made once.

    The sites are paths of `site.toml`. `texts` makes the class texts that some baselines need; None
    where none of these is run.
    """

    def __init__(self, study: Study, sites: Sequence[Path], texts: Texts | None = None) -> None:
        self.study = study
        self.sites = list(sites)
        self.texts = texts
        self.sessions = self._sessions({"model": {"train": "adapter"}})

    def probabilities(self, name: str) -> Doubles:
        """Class probabilities [m, C] of all test images, in the order of the sites."""
        found = self._predicted(name)
        tested = sum(len(session.roles.test) for session in self.sessions)
        parts = self._by_site(found[:tested])
        rests = np.split(found[tested:], np.cumsum([len(s.roles.rest) for s, _ in parts])[:-1])
        adapted = []
        for (session, test), rest in zip(parts, rests, strict=True):
            shares = session.rest_shares
            adapted.append(test if shares is None else for_prevalence(test, rest, shares))
        return np.concatenate(adapted)

    def _predicted(self, name: str) -> Doubles:
        """Probabilities of all test images, then of all images beyond the shots, as they are."""
        if name in registry.ON_PIXELS:
            return registry.ON_PIXELS[name](gathering.gathered(self.sessions, gathering.thumbnails))
        if name in registry.ON_FEATURES:
            return registry.ON_FEATURES[name](self._on_features)
        if name in registry.ON_PROMPTS:
            return registry.ON_PROMPTS[name](self._on_prompts)
        sessions = self._sessions(registry.MODELS[name])
        start = sessions[0].pipeline.tower
        episode = self._with_text(gathering.gathered(sessions, gathering.inputs), start.tower.dim)
        return registry.ON_IMAGES[name](TunedEpisode(start, episode))

    def metrics(self, name: str) -> dict[str, Any]:
        """Overall and per-site metrics as in `result.json`; every site draws its own intervals."""
        per_site: dict[str, SiteMetrics] = {}
        for session, found in self._by_site(self.probabilities(name)):
            per_site[session.name] = site_metrics(
                found,
                gathering.labels_of(session, "test"),
                [record.group for record in session.roles.test],
                len(self.study.classes),
                seed=self.study.study.seed,
                min_count=self.study.federation.min_count,
            )
        return {
            **combine(list(per_site.values())).to_dict(),
            "per_site": {site: metrics.to_dict() for site, metrics in per_site.items()},
        }

    def predictions(self, name: str, sources: Mapping[str, str]) -> Predictions:
        """What a baseline says of every test image; `sources` as in `predictions.gathered`."""
        return joined(
            [
                of_site(session, found, gathering.labels_of(session, "test"), sources)
                for session, found in self._by_site(self.probabilities(name))
            ]
        )

    @cached_property
    def _on_features(self) -> Episode:
        dim = self.sessions[0].pipeline.tower.tower.dim
        return self._with_text(gathering.gathered(self.sessions, gathering.features), dim)

    @cached_property
    def _on_prompts(self) -> Episode:
        """Features of the frozen tower, with the study's text tower beside them."""
        episode = self._on_features
        folder = load_site(self.sites[0]).data.weights
        return replace(episode, prompts=prompts_of(self.study, episode.shots.shape[1], folder))

    def _with_text(self, episode: Episode, dim: int) -> Episode:
        return episode if self.texts is None else replace(episode, text=self.texts(self.study, dim))

    def _sessions(self, changes: Changes) -> list[Session]:
        """The sites in the study with some settings changed; none of these changes the shots."""
        study = changed(self.study, changes)
        return [Session(load_site(path), study) for path in self.sites]

    def _by_site(self, found: Doubles) -> list[tuple[Session, Doubles]]:
        """Rows of the test images site by site, as `gathered` put them together."""
        tested = [session for session in self.sessions if session.roles.test]
        ends = np.cumsum([len(session.roles.test) for session in tested])
        return list(zip(tested, np.split(found, ends[:-1]), strict=True))


def for_prevalence(test: Doubles, rest: Doubles, shares: Doubles) -> Doubles:
    """Predictions [m, C] of a site that knows what its mean prediction should be, made as ours are.

    `rest` [n, C] are its predictions of the images of whose classes it knows the `shares` [C].
    """
    logits, others = (np.log(np.maximum(part, SMALLEST)) for part in (test, rest))
    return np.asarray(softmax(logits + matching_intercepts(others, shares), axis=1))


def runnable(study: Study, names: Sequence[str]) -> list[str]:
    """Those of `names` that can be run; with a tower of drawn weights only those on pixels."""
    model = study.model
    brings = model.image.startswith(("hf:", "hf-hub:", "local-dir:"))
    pretrained = brings or model.checkpoint is not None or model.pretrained is not None
    return [name for name in names if name in registry.ON_PIXELS or pretrained]
