"""Golden runs: whole studies whose every number must stay the same to the bit.

A change that moves code and should move no result is held against the commit before it:

    git worktree add ../before COMMIT              # and `make .venv/.installed` in it
    python tests/golden/golden.py record ../before before.json --data ../shared/data
    python tests/golden/golden.py record . after.json --data ../shared/data
    python tests/golden/golden.py compare before.json after.json

What is recorded of a run: trained weights, text bank, centre and intercepts (as hashes), metrics,
losses, who took part, and a hash of every test image's prediction. Both recordings must come from
one machine, as another CPU rounds otherwise.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from inspect import signature
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

SMALL = [
    "simulation.phantoms.per_class=16",
    "simulation.phantoms.size=48",
    "alignment.shots=5",
    "alignment.rounds=3",
    "pretraining.rounds=2",
    "pretraining.clusters=5",
]
"""`phantoms.toml`, cut down until a run takes seconds."""
TRAINS = [*SMALL, "model.train=last-1", "federation.min_count=2"]
PRIVATE = [
    *TRAINS,
    "alignment.centring=global",
    "calibration.rounds=0",
    "privacy.epsilon=8.0",
    "privacy.delta=1e-3",
]
SECURE = ["privacy.secure_aggregation=true", "alignment.centring=global"]

RUNS: dict[str, tuple[str, list[str]]] = {
    "dp-sgd": ("phantoms", [*PRIVATE, "privacy.mechanism=dp-sgd"]),
    "dp-sgd, image, subspace": (
        "phantoms",
        [
            *PRIVATE,
            "privacy.mechanism=dp-sgd",
            "privacy.unit=image",
            "privacy.cluster_dimensions=8",
            "pretraining.recluster_every=1",
        ],
    ),
    "prototypes": (
        "phantoms",
        [*PRIVATE, "privacy.mechanism=prototypes", "pretraining.rounds=0"],
    ),
    "prototypes, means": (
        "phantoms",
        [
            *PRIVATE,
            "privacy.mechanism=prototypes",
            "pretraining.rounds=0",
            "alignment.bank_start=means",
        ],
    ),
    "secure sum": ("phantoms", [*TRAINS, *SECURE]),
    "secure sum, sites": (
        "phantoms",
        [
            *TRAINS,
            *SECURE,
            "federation.weighting=sites",
            "federation.aggregation=adam",
            "alignment.scaling=global",
        ],
    ),
    "secure dp-sgd": (
        "phantoms",
        [*PRIVATE, *SECURE, "privacy.mechanism=dp-sgd", "privacy.noise=distributed"],
    ),
    "secure prototypes": (
        "phantoms",
        [
            *PRIVATE,
            *SECURE,
            "privacy.mechanism=prototypes",
            "privacy.noise=distributed",
            "pretraining.rounds=0",
        ],
    ),
    "lora": ("phantoms", [*SMALL, "model.train=lora"]),
    "adapter": ("phantoms", [*SMALL, "model.train=adapter", "alignment.region_blend=0.3"]),
    "krum": ("phantoms", [*TRAINS, "federation.aggregation=krum"]),
    "half, yogi": (
        "phantoms",
        [*TRAINS, "federation.precision=half", "federation.aggregation=yogi"],
    ),
    "scaled, spread, reclustered": (
        "phantoms",
        [
            *TRAINS,
            "alignment.scaling=global",
            "alignment.label_propagation=true",
            "pretraining.recluster_every=1",
            "alignment.text_pull=0.1",
        ],
    ),
    "not centred, texts fixed": (
        "phantoms",
        [*TRAINS, "alignment.centring=none", "alignment.train_text_bank=false"],
    ),
    "prevalence, region view, otsu": (
        "phantoms",
        [
            *TRAINS,
            "simulation.prevalence=known",
            "alignment.region_view=true",
            "regions.method=otsu",
            "alignment.contrast=batch",
        ],
    ),
    "phantoms": ("phantoms", []),
    "breast_ultrasound": ("breast_ultrasound", []),
    "chest_xray": ("chest_xray", []),
}
"""Name → study and what is changed in it."""


def digest(data: bytes) -> str:
    """The first half of a SHA-256."""
    return hashlib.sha256(data).hexdigest()[:32]


def recorded(out: Path) -> dict[str, Any]:
    """Everything of a finished run that must not change."""
    result = json.loads((out / "result.json").read_text())
    arrays = load_file(out / "model.safetensors")
    kept = ("overall", "per_site", "baselines", "evaluations", "study_sha256")
    return {
        "arrays": {name: digest(array.tobytes()) for name, array in sorted(arrays.items())},
        "metrics": {name: result[name] for name in kept if name in result},
        "losses": [entry["loss"] for entry in result["rounds"] if entry["loss"] is not None],
        "participants": sorted({site for e in result["rounds"] for site in e["participants"]}),
        "predictions": digest((out / "predictions.json").read_bytes()),
    }


def record(tree: Path, file: Path, data: Path, only: list[str]) -> None:
    """Run every study with the code in `tree`, in one process of its own environment."""
    python = tree.resolve() / ".venv" / "bin" / "python"
    command = [str(python), str(Path(__file__).resolve()), "here", str(file.resolve())]
    command += ["--data", str(data.resolve()), "--only", *only]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    sys.exit(subprocess.run(command, cwd=tree, env=environment, check=False).returncode)


def here(file: Path, data: Path, only: list[str]) -> None:
    """Run every study with the code that this process imports; what is in `file` is kept."""
    from hica_simulations.run import Place, simulate
    from hica_simulations.scenario import load_scenario

    # Before 2026-11-27 one function ran the baselines, too.
    alone = {"baselines": False} if "baselines" in signature(simulate).parameters else {}
    found = json.loads(file.read_text()) if file.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, (study, changes)) in enumerate(RUNS.items()):
            if name in found or (only and name not in only):
                continue
            scenario = load_scenario(Path(f"simulations/studies/{study}.toml"), changes)
            out, cache = Path(folder) / str(number), Path(folder) / "cache"
            simulate(scenario, Place(data, out, cache, "cpu"), **alone)
            found[name] = recorded(out)
            file.write_text(json.dumps(found, indent=1, sort_keys=True))
            print(name, "recorded", flush=True)


def differences(one: Any, other: Any, place: str = "") -> list[str]:
    """Every place at which two recordings differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        names = sorted(one.keys() | other.keys())
        pairs = [(f"{place}/{name}", one.get(name), other.get(name)) for name in names]
        return [line for where, a, b in pairs for line in differences(a, b, where)]
    return [] if one == other else [f"{place}: {one!r} is now {other!r}"]


def compare(before: Path, after: Path) -> None:
    """Print what differs between two recordings; exit code 1 where anything does."""
    one, other = (json.loads(file.read_text()) for file in (before, after))
    found = differences(one, other)
    print("\n".join(found) or f"{len(one)} runs, equal to the bit")
    sys.exit(bool(found))


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    recording = verbs.add_parser("record")
    recording.add_argument("tree", type=Path)
    recording.add_argument("file", type=Path)
    recording.add_argument("--data", type=Path, default=Path("../shared/data"))
    recording.add_argument("--only", nargs="*", default=[])
    running = verbs.add_parser("here")
    running.add_argument("file", type=Path)
    running.add_argument("--data", type=Path, required=True)
    running.add_argument("--only", nargs="*", default=[])
    comparing = verbs.add_parser("compare")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    chosen = parser.parse_args()
    if chosen.verb == "record":
        record(chosen.tree, chosen.file, chosen.data, chosen.only)
    elif chosen.verb == "here":
        here(chosen.file, chosen.data, chosen.only)
    else:
        compare(chosen.before, chosen.after)


if __name__ == "__main__":
    main()
