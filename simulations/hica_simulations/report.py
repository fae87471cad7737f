"""The report of a simulation: the coordinator's, with the pictures only a simulation may show.

Here all sites' images lie on one machine; in a real federation the same report has none of them.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import PCA

from hica.images.pixels import pixels_of
from hica.method.local_training import embed_all
from hica.method.model import AlignmentModel
from hica.regions import extract
from hica.steps.personal import predict
from hica.steps.pretraining import matched
from hica_client.session import Session
from hica_client.site import load_site
from hica_server.report import Cluster, Embedding, Example, Extras, write_report
from hica_server.state import RunState
from hica_server.tracker import write_events
from hica_simulations.place import Place
from hica_simulations.scenario import Scenario

EXAMPLES_PER_SITE = 2
IMAGES_PER_CLUSTER = 8
CLUSTERS_SHOWN = 12


def write_simulation_report(scenario: Scenario, place: Place, result: dict[str, Any]) -> Path:
    """Write `report.html` and TensorBoard events into the run directory; returns the report."""
    write_events(place.out / "events", result["rounds"])
    report = place.out / "report.html"
    write_report(report, result, scenario.as_toml(), make_extras(scenario, place))
    return report


def make_extras(scenario: Scenario, place: Place) -> Extras:
    """Embedding, examples and clusters, computed with the final weights."""
    study = scenario.study
    learnt = RunState.load(place.out, study.sha256).learnt
    points: list[np.ndarray[Any, Any]] = []
    labels: list[int] = []
    sites: list[str] = []
    examples: list[Example] = []
    galleries: dict[int, list[tuple[Session, int]]] = {}
    for path in sorted((place.out / "sites").glob("*/site.toml")):
        session = Session(load_site(path), study)
        if session.roles.test:
            model = session.model(learnt)
            batch = embed_all(model, session.examples("test"))
            points.append(batch.images.numpy())
            labels += batch.labels.tolist()
            sites += [session.name] * len(batch.labels)
            examples += _examples(session, model)
        if study.pretraining.rounds and session.roles.pool:
            rows, clusters = matched(session.images("unlabelled"), session.kept("pseudo_labels"))
            for row, cluster in zip(rows.tolist(), clusters.tolist(), strict=True):
                galleries.setdefault(cluster, []).append((session, row))
    flat = PCA(2, random_state=0).fit_transform(np.concatenate(points)).astype(np.float32)
    return Extras(Embedding(flat, labels, sites), examples, _clusters(galleries))


def _examples(session: Session, model: AlignmentModel) -> list[Example]:
    """The surest right and the surest wrong prediction of a site: neither kind is hidden."""
    probabilities = predict(session, model)
    labels = session.examples("test").labels.numpy()
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    kinds = (kind for kind in (right, ~right) if kind.any())
    rows = [int(np.where(kind, confidence, -1.0).argmax()) for kind in kinds]
    return [_example(session, model, row, probabilities[row]) for row in rows[:EXAMPLES_PER_SITE]]


@torch.no_grad()
def _example(
    session: Session, model: AlignmentModel, row: int, probabilities: np.ndarray[Any, Any]
) -> Example:
    """An image, its regions, and how close each patch is to the text of the predicted class."""
    pipeline, names = session.pipeline, session.study.class_names
    tower = pipeline.tower
    pixels, mask, _ = pixels_of(session.roles.test[row], tower.tower.preprocess, pipeline.cache)
    masks = extract(pipeline.method, pixels, mask, pipeline.region_count)
    predicted = int(probabilities.argmax())
    model.eval()
    patches = model.placed(tower.patch_features(pixels[None].to(session.device))[0], 1)
    similarity = patches @ model.unit_bank()[0][predicted]
    grid = tower.tower.grid
    return Example(
        image=pixels.permute(1, 2, 0).numpy(),
        region_masks=masks.numpy(),
        similarity=similarity.reshape(grid, grid).float().cpu().numpy(),
        label=session.roles.test[row].label or "",
        prediction=names[predicted],
        probability=float(probabilities[predicted]),
        site=session.name,
    )


def _clusters(galleries: dict[int, list[tuple[Session, int]]]) -> list[Cluster]:
    """The largest clusters, a few images of each spread over its members and so over the sites."""
    largest = sorted(galleries.items(), key=lambda item: (-len(item[1]), item[0]))
    clusters = []
    for number, members in largest[:CLUSTERS_SHOWN]:
        step = max(1, len(members) // IMAGES_PER_CLUSTER)
        images = []
        for session, row in members[::step][:IMAGES_PER_CLUSTER]:
            preprocess = session.pipeline.tower.tower.preprocess
            pixels, _, _ = pixels_of(session.roles.pool[row], preprocess, session.pipeline.cache)
            images.append(pixels.permute(1, 2, 0).numpy())
        clusters.append(Cluster(number, images, len(members)))
    return clusters
