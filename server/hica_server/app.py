"""The ServerApp: prepare towers and texts, meet the sites, walk the plan, leave a result.

The round loop is ours (`hica_server.plan`), because Flower's `Strategy.start` waits for ever for
missing nodes, cannot resume and keeps no list of who took part.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from hica.adaptation import AdaptedTower
from hica.checkpoint import write_json
from hica.model import AlignmentModel
from hica.study import Study
from hica.study_model import adapted_tower
from hica.text_bank import TextBank, build_text_bank
from hica.text_refinement import read_corpus, read_pairs, refine, study_pairs
from hica.towers import load_text_tower
from hica_server.coordinator import Coordinator, Roster
from hica_server.plan import make_plan
from hica_server.result import make_result, save_model
from hica_server.state import RunState

logger = logging.getLogger("hica.server")


TextBankMaker = Callable[[Study, int], TextBank]
"""Makes the bank of a study for a joint space of a given width."""


@dataclass(frozen=True)
class Watcher:
    """Where a run reports while it goes on; every part may stay silent.

    Attributes:
        step: Called with (name of the step, number of it, number of all).
        entry: Called with each exchange as it is recorded.
        saved: Called with the state as it lies on disk: at the start, and after every step.
    """

    step: Callable[[str, int, int], None] = lambda *_: None
    entry: Callable[[dict[str, Any]], None] = lambda *_: None
    saved: Callable[[RunState], None] = lambda *_: None


def make_server_app(
    study: Study,
    out: Path,
    weights: Path,
    text_bank: TextBankMaker,
    watcher: Watcher | None = None,
    zero_shot: bool = True,
) -> ServerApp:
    """A ServerApp that runs `study`, or resumes it, in the run directory `out`.

    Args:
        study: The resolved study.
        out: Run directory: `study.json`, `state`, `model`, `result.json`.
        weights: Folder below which the study's checkpoints lie.
        text_bank: Called where a run starts; see `make_bank`.
        watcher: Told of progress.
        zero_shot: Whether the texts alone are evaluated first.
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:  # noqa: ARG001  Flower's signature
        run_study(grid, study, out, weights, text_bank, watcher or Watcher(), zero_shot)

    return app


def run_study(
    grid: Grid,
    study: Study,
    out: Path,
    weights: Path,
    text_bank: TextBankMaker,
    watcher: Watcher,
    zero_shot: bool = True,
    roster: Roster | None = None,
) -> dict[str, Any]:
    """Run or resume a study to its end and return `result.json`.

    Args:
        grid: Flower's grid.
        study: The resolved study.
        out: Run directory.
        weights: Folder below which the study's checkpoints lie.
        text_bank: Called where a run starts.
        watcher: Told of progress.
        zero_shot: Whether the texts alone are evaluated first.
        roster: The enrolled sites; see `Coordinator`.

    Raises:
        HicaError: Whatever stops the run; the state of the last completed step is on disk.
    """
    out.mkdir(parents=True, exist_ok=True)
    state = RunState.load(out, study.sha256)
    write_json(out / "study.json", study.model_dump(mode="json"))
    tower = adapted_tower(study, weights, torch.device("cpu"))
    if state.done == 0:
        publish(study, tower, text_bank(study, tower.tower.dim), state)
    watcher.saved(state)
    coordinator = Coordinator(grid, study, state, watcher.entry, roster)
    coordinator.meet_sites(tower.tower.fingerprint)
    plan = make_plan(study, zero_shot)
    for number, step in enumerate(plan):
        if number < state.done:
            continue
        watcher.step(step.name, number, len(plan))
        step.run(coordinator)
        state.done = number + 1
        state.save(out)
        watcher.saved(state)
    checkpoint = save_model(out, study, state)
    result = make_result(study, state, checkpoint)
    write_json(out / "result.json", result)
    return result


def make_bank(study: Study, dim: int, texts: Path) -> TextBank:
    """Refine the text tower on the study's texts and corpus, then embed prompts and findings.

    Args:
        study: Its classes and `[text]`.
        dim: Width of the joint space.
        texts: Folder below which the corpus lies.
    """
    settings, seed = study.text, study.study.seed
    pairs = study_pairs(study.class_texts)
    corpus: list[str] = []
    if settings.corpus:
        pairs += read_pairs(settings.corpus, texts)
        corpus = read_corpus(settings.corpus, texts)
    tower = load_text_tower(
        study.model.text,
        image=study.model.image,
        pretrained=study.model.pretrained,
        vocabulary=[text for pair in pairs for text in pair] + corpus,
        seed=seed,
    )
    if settings.epochs:
        refine(tower, pairs, corpus, settings.epochs, settings.learning_rate, seed)
    return build_text_bank(tower, study.class_texts, dim, settings.max_similarity, seed)


def publish(study: Study, tower: AdaptedTower, bank: TextBank, state: RunState) -> None:
    """Put the initial weights and the bank into a fresh state."""
    model = AlignmentModel(tower, bank, study.alignment.train_text_bank)
    state.shared = {name: value.detach().numpy().copy() for name, value in model.shared().items()}
    state.anchor = {"classes": bank.classes.numpy(), "findings": bank.findings.numpy()}
    state.centre = model.centre.numpy().copy()
    state.bias = model.bias.double().numpy().copy()
    state.text_bank_sha256 = bank.sha256
