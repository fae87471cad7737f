"""World: the hospitals of an audit, the patients looked for, and the public start.

The first site with labelled images is the one attacked. Two patients are looked for there:

- `typical`: one of its own, left out of its episode, of median loss under the public start;
- `odd`: pixels drawn at random, labelled as the class they look least like. Of all patients the
  easiest to find: the worst case that DP still covers (gradient canaries are the same idea; Nasr
  et al., 2021).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hica.errors import DataError
from hica.images.manifest import read_manifest
from hica.method.examples import Examples
from hica.method.local_training import Batch, Loss, embed_all, mean_features
from hica.method.model import AlignmentModel
from hica.privacy.gradients import Draw, per_unit_gradients
from hica.seeds import derived_seed
from hica.steps.alignment import loss_of
from hica.steps.centre import CENTRE
from hica.steps.plan import plan
from hica.study import Study
from hica.text.bank import TextBank
from hica_client.session import Session
from hica_client.site import load_site
from hica_server.publication import make_bank
from hica_simulations.partitions import build_sites
from hica_simulations.place import Place
from hica_simulations.scenario import Scenario
from hica_simulations.site_files import write_site

CANARIES = ("typical", "odd")


@dataclass(frozen=True)
class Hospital:
    """A site of the audit.

    Attributes:
        pool: All its labelled training images, the typical canary excepted.
        episode: Rows of `pool` that it learns from where nothing else is said.
        shots: Images of each class.
        name: The site's.
    """

    pool: Examples
    episode: list[int]
    shots: int
    name: str

    def fresh(self, draws: np.random.Generator) -> list[int]:
        """Another episode of as many images of each class, drawn at random."""
        labels = self.pool.labels.numpy()
        chosen: list[int] = []
        for label in np.unique(labels):
            rows = np.flatnonzero(labels == label)
            chosen += draws.permutation(rows)[: self.shots].tolist()
        return chosen


@dataclass(frozen=True)
class World:
    """Everything of an audit that does not depend on the setting.

    Attributes:
        hospitals: The attacked one first.
        canaries: The patients looked for, an image each, in the order of `CANARIES`.
        bank: Texts; public.
        session: The attacked site as its client has it open; holds the tower.
        initial: Trained weights of the tower before anything was trained; public.
    """

    study: Study
    hospitals: list[Hospital]
    canaries: Examples
    bank: TextBank
    session: Session
    initial: dict[str, Tensor]

    @property
    def units(self) -> int:
        """Images that the attacked site learns from; its schedule is set for so many."""
        return len(self.hospitals[0].episode)


def make_world(scenario: Scenario, place: Place) -> World:
    """Prepare all images of a scenario, through the cache.

    Raises:
        DataError: No site has more labelled images than it learns from.
        HicaError: As `build_sites` and `Session`.
    """
    study = scenario.study
    folders = build_sites(scenario, place.data, place.out, place.cache)
    labelled = [folder for folder in folders if folder.labelled]
    sessions = [Session(load_site(write_site(each, place.out, place)), study) for each in labelled]
    if not sessions:
        raise DataError("simulation.sites: no site has labelled images; an audit needs one")
    bank = make_bank(study, sessions[0].pipeline.tower.tower.dim, place.data)
    hospitals = [_hospital(session, bank) for session in sessions]
    session, first = sessions[0], hospitals[0]
    tower = session.pipeline.tower
    initial = {name: value.detach().clone() for name, value in tower.trainable().items()}
    model = start_model(session, study, bank)
    typical = _typical(model, first, study, session.name)
    odd = _odd(model, first.pool, session, bank)
    without = [row for row in range(len(first.pool)) if row != typical]
    episode = [without.index(row) for row in first.episode]
    hospitals[0] = Hospital(
        first.pool.rows(torch.tensor(without)), episode, first.shots, first.name
    )
    canaries = joined(first.pool.rows(torch.tensor([typical])), odd)
    return World(study, hospitals, replace(canaries, groups=CANARIES), bank, session, initial)


@dataclass(frozen=True)
class Start:
    """The public start of a setting.

    Attributes:
        model: The model that is sent; trials change its weights and put them back by `reset`.
        weights: The weights that are sent in every round.
        loss: The loss of stage 2.
        gradients: Gradient of each canary's loss in all weights, as DP-SGD would clip it: unit
            vectors.
        rates: Learning rate of each weight. AdamW's steps are about as long as these, so that a
            change is divided by them before it is compared.
        anchor: Class and finding texts.
    """

    model: AlignmentModel
    weights: dict[str, Tensor]
    loss: Loss
    gradients: list[dict[str, Tensor]]
    rates: dict[str, float]
    anchor: tuple[Tensor, Tensor]

    def reset(self) -> None:
        """Put the public weights back."""
        self.model.load_shared(self.weights)


def make_start(world: World, study: Study) -> Start:
    """The model that a setting's study starts from; its centre is public, too."""
    with torch.no_grad():  # the tower is shared: an earlier start may have trained it
        for name, value in world.session.pipeline.tower.trainable().items():
            value.copy_(world.initial[name])
    model = start_model(world.session, study, world.bank)
    if any(turn.step is CENTRE for turn in plan(study)):
        model.centre.copy_(_centre(model, [hospital.pool for hospital in world.hospitals]))
    weights = {name: value.detach().clone() for name, value in model.shared().items()}
    loss = loss_of(study)
    model.train()
    canaries = [world.canaries.rows(torch.tensor([row])) for row in range(2)]
    gradients = [gradient_of(model, canary, loss) for canary in canaries]
    device = model.centre.device
    anchor = (world.bank.classes.to(device), world.bank.findings.to(device))
    tower_rate, bank_rate = study.alignment.learning_rate, study.alignment.bank_learning_rate
    rates = {name: bank_rate if name.startswith("bank.") else tower_rate for name in weights}
    return Start(model, weights, loss, gradients, rates, anchor)


def start_model(session: Session, study: Study, bank: TextBank) -> AlignmentModel:
    """A model on the session's tower, which all models of an audit share."""
    trained, private = study.alignment.train_text_bank, study.privacy.is_private
    model = AlignmentModel(session.pipeline.tower, bank, trained, unit_features=private)
    return model.to(session.device)


def gradient_of(model: AlignmentModel, image: Examples, loss: Loss) -> dict[str, Tensor]:
    """Direction of one image's gradient, mean over its views: a unit vector over all weights."""
    views = image.hidden.shape[1]
    one = torch.zeros(views, dtype=torch.long)
    shares = torch.full((views,), 1.0 / views, dtype=torch.float64)
    draw = Draw(images=one, views=torch.arange(views), units=one, shares=shares)
    (found,) = per_unit_gradients(model, image, loss, draw, views)
    norm = torch.stack([part.double().norm() for part in found.values()]).norm().clamp(min=1e-12)
    shared = model.shared()
    return {name: (part / norm).view_as(shared[name]) for name, part in found.items()}


def joined(first: Examples, second: Examples) -> Examples:
    """The images of `first`, then those of `second`."""
    names = ("hidden", "region_weights", "valid", "labels", "positives")
    parts = {name: torch.cat([getattr(first, name), getattr(second, name)]) for name in names}
    return Examples(**parts, groups=first.groups + second.groups)


def rows_of(model: AlignmentModel, examples: Examples) -> NDArray[np.float64]:
    """Unit embeddings [n, D], as class sums are made of."""
    return np.asarray(embed_all(model, examples).images.double().numpy())


def _hospital(session: Session, bank: TextBank) -> Hospital:
    names, stage = session.study.class_names, session.study.alignment
    rows = [row for row in read_manifest(session.site.data.manifest) if row.split != "test"]
    labelled = [row for row in rows if row.label]
    labels = [names.index(str(row.label)) for row in labelled]
    what = f"{session.name}: preparing images"
    pool = session.pipeline.examples(labelled, labels, bank, stage.views, what)
    places = {row.name: place for place, row in enumerate(labelled)}
    episode = [places[shot.name] for shot in session.roles.shots]
    return Hospital(pool, episode, stage.shots, session.name)


def _typical(model: AlignmentModel, hospital: Hospital, study: Study, name: str) -> int:
    """Row of the image of median loss among those of patients not in the episode."""
    pool = hospital.pool
    learnt_from = {pool.groups[row] for row in hospital.episode}
    spare = [row for row in range(len(pool)) if pool.groups[row] not in learnt_from]
    if not spare:
        raise DataError(
            f"{name}: all labelled training images are in its episode, so that none is left to be "
            "looked for: lower alignment.shots, or raise simulation.phantoms.per_class"
        )
    model.eval()
    with torch.no_grad():
        batch = embed_all(model, pool.rows(torch.tensor(spare)))
        batch = Batch(*(part.to(model.centre.device) for part in batch))
        losses = loss_of(study)(model, batch)
    return spare[int(losses.cpu().argsort()[len(spare) // 2])]


@torch.no_grad()
def _odd(model: AlignmentModel, pool: Examples, session: Session, bank: TextBank) -> Examples:
    """An image of random pixels, with the regions of the first one of the pool."""
    tower, views = session.pipeline.tower, pool.hidden.shape[1]
    side = tower.tower.preprocess.size
    seed = derived_seed(session.study.study.seed, "canary")
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (1, 3, side, side), dtype=torch.uint8, generator=generator)
    region_weights = pool.region_weights[:1]
    tower.eval()
    shown = pixels.expand(views, -1, -1, -1).to(session.device)
    hidden = tower.frozen(shown, region_weights[0].to(session.device, torch.float32)).cpu()
    image = Examples(
        hidden=hidden.unsqueeze(0).to(pool.hidden.dtype),
        region_weights=region_weights,
        valid=pool.valid[:1],
        labels=torch.zeros(1, dtype=torch.long),
        positives=pool.positives[:1],
        groups=("odd",),
    )
    embedding = embed_all(model, image).images.to(model.centre.device)
    label = (embedding @ model.unit_bank()[0].T).argmin(dim=1).cpu()
    return replace(image, labels=label, positives=bank.positives(label, [()]))


def _centre(model: AlignmentModel, pools: Sequence[Examples]) -> Tensor:
    """Mean features [2, D] of images and of regions over all sites."""
    found = [mean_features(model, pool) for pool in pools]
    whole = torch.cat([images for images, _, _ in found]).mean(dim=0)
    parts = torch.cat([regions[has_regions] for _, regions, has_regions in found])
    return torch.stack([whole, parts.mean(dim=0) if len(parts) else whole]).to(model.centre)
