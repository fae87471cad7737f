"""Membership: was this patient among those the site learnt from?

A trial puts each canary in or leaves it out, by a fair coin of its own, lets the site answer from
the public start, and scores what left. The coordinator attacks; it follows the protocol but sends
the public weights in every round, so that all rounds tell of the same gradient.

Attackers:

- `insider`: knows all other patients, who are the same in every trial. This is whom differential
  privacy is defined against, and the one that bounds ε.
- `outsider`: knows where they come from; in every trial they are drawn anew, at every site.

Scores, from what is seen (one site's, or the sum over all sites):

- `prototypes`: ⟨class sum, canary's embedding⟩ and, under noise, the class count. For Gaussian
  noise no test is better (Neyman & Pearson, 1933), for the two distributions differ by a shift.
- `update`: minus ⟨change of the weights over their learning rates, gradient of the canary⟩, summed
  over rounds (Nasr et al., 2023, section 4).
- `model`: how sure the new model is of the canary's class, ln p/(1 - p), as a likelihood ratio of
  normal distributions with and without it (LiRA; Carlini et al., 2022). Needs the model only.
"""

from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hica.method.local_training import embed_all
from hica.privacy.noise import SeededNoise
from hica.privacy.release import units_of
from hica.progress import track
from hica.seeds import derived_seed
from hica.steps.arrays import COUNT_SCALE
from hica_simulations.experiments.audit.settings import Setting
from hica_simulations.experiments.audit.site_side import class_sums, mean_change, round_change
from hica_simulations.experiments.audit.world import (
    CANARIES,
    Start,
    World,
    joined,
    make_start,
    rows_of,
)

Attacker = Literal["insider", "outsider"]
ATTACKERS: tuple[Attacker, ...] = ("insider", "outsider")


class Trials(NamedTuple):
    """What some trials of an attack gave."""

    inside: NDArray[np.bool_]
    """[T, 2] whether each canary was in."""
    scores: dict[str, NDArray[np.float64]]
    """[T, 2] by what was seen, higher for members; those of `model` are not yet ratios."""


def prototype_trials(world: World, setting: Setting, attacker: Attacker, trials: int) -> Trials:
    """Attack one release of class sums."""
    start = make_start(world, setting.statistics)
    start.reset()
    rows = [rows_of(start.model, hospital.pool) for hospital in world.hospitals]
    labels = [hospital.pool.labels.numpy() for hospital in world.hospitals]
    units = [units_of(setting.training, hospital.pool.groups) for hospital in world.hospitals]
    targets, of = rows_of(start.model, world.canaries), world.canaries.labels.numpy()
    inside = np.zeros((trials, len(CANARIES)), dtype=bool)
    scores = np.zeros(inside.shape)
    title = f"{setting.title}: class sums, {attacker}"
    for trial in track(range(trials), title, trials):
        inside[trial], draws = _coins(world, setting, attacker, "prototypes", trial)
        noise = SeededNoise(int(draws.integers(2**62)))
        sums, counts = np.zeros(1), np.zeros(1)
        for site in _seen_sites(world, setting):
            chosen = _episode(world, site, attacker, draws)
            own, whose = rows[site][chosen], [units[site][row] for row in chosen]
            classes = labels[site][chosen]
            if site == 0:
                own = np.concatenate([own, targets[inside[trial]]])
                classes = np.concatenate([classes, of[inside[trial]]])
                whose = whose + [CANARIES[k] for k in np.flatnonzero(inside[trial])]
            left = class_sums(setting, own, classes, whose, noise)
            sums, counts = sums + left.sums, counts + left.counts
        scores[trial] = (sums[of] * targets).sum(axis=1)
        if setting.is_private:  # an exact count would tell all; a site's exact counts are public
            scores[trial] += COUNT_SCALE**2 * counts[of]
    return Trials(inside, {"prototypes": scores})


def update_trials(world: World, setting: Setting, attacker: Attacker, trials: int) -> Trials:
    """Attack the updates of all alignment rounds."""
    start = make_start(world, setting.training)
    inside = np.zeros((trials, len(CANARIES)), dtype=bool)
    scores = {"update": np.zeros(inside.shape), "model": np.zeros(inside.shape)}
    title = f"{setting.title}: updates, {attacker}"
    rounds = setting.training.alignment.rounds
    for trial in track(range(trials), title, trials):
        inside[trial], draws = _coins(world, setting, attacker, "update", trial)
        sites = _seen_sites(world, setting)
        episodes = {site: _episode(world, site, attacker, draws) for site in sites}
        for _ in range(rounds):
            change = _seen_change(world, setting, start, inside[trial], episodes, draws)
            scores["update"][trial] += [_against(change, each, start) for each in start.gradients]
            scores["model"][trial] += _surety(world, start, change) / rounds
    return Trials(inside, scores)


def _seen_change(
    world: World,
    setting: Setting,
    start: Start,
    inside: NDArray[np.bool_],
    episodes: dict[int, list[int]],
    draws: np.random.Generator,
) -> dict[str, Tensor]:
    """One round's change of the weights: the attacked site's, or the mean over all sites.

    A secure sum tells the mean and no more; its rounding, of 1e-8, is left out.
    """
    changes = []
    for site, chosen in episodes.items():
        examples = world.hospitals[site].pool.rows(torch.tensor(chosen))
        if site == 0:
            canaries = world.canaries.rows(torch.from_numpy(np.flatnonzero(inside)))
            examples = joined(examples, canaries)
        noise = SeededNoise(int(draws.integers(2**62)))
        generator = torch.Generator().manual_seed(int(draws.integers(2**62)))
        changes.append(round_change(setting, start, examples, world.units, noise, generator))
    return mean_change(changes)


def _against(change: dict[str, Tensor], gradient: dict[str, Tensor], start: Start) -> float:
    """How far the weights moved down a gradient, in steps."""
    return -sum(
        float((change[name].double() * part).sum()) / start.rates[name]
        for name, part in gradient.items()
    )


@torch.no_grad()
def _surety(world: World, start: Start, change: dict[str, Tensor]) -> NDArray[np.float64]:
    """Logit [2] of each canary's class under the public start with a change."""
    model, labels = start.model, world.canaries.labels
    model.load_shared({name: sent + change[name] for name, sent in start.weights.items()})
    images = embed_all(model, world.canaries).images.to(model.centre.device)
    logits = (images @ model.unit_bank()[0].T).double().cpu()
    logits /= world.study.alignment.temperature
    own = logits.gather(1, labels.unsqueeze(1)).squeeze(1)
    others = logits.scatter(1, labels.unsqueeze(1), -torch.inf).logsumexp(dim=1)
    return np.asarray((own - others).numpy())


def _coins(
    world: World, setting: Setting, attacker: Attacker, seen: str, trial: int
) -> tuple[NDArray[np.bool_], np.random.Generator]:
    """Whether each canary is in, and the generator of all else in a trial."""
    seed = derived_seed(world.study.study.seed, setting.name, attacker, seen, trial)
    draws = np.random.default_rng(seed)
    return draws.random(len(CANARIES)) < 0.5, draws


def _seen_sites(world: World, setting: Setting) -> range:
    return range(len(world.hospitals) if setting.summed else 1)


def _episode(world: World, site: int, attacker: Attacker, draws: np.random.Generator) -> list[int]:
    hospital = world.hospitals[site]
    return hospital.episode if attacker == "insider" else hospital.fresh(draws)
