"""`result.json` and a few pictures → one HTML page that needs nothing else.

The page holds no script and no link; names from sites are escaped by the template. Every part of
the result may be missing, as a real federation has no images and a stopped run no final metrics:
its section is then left out.
"""

import datetime
import hashlib
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from hica.errors import StorageError
from hica.printable import size_words
from hica.storage import replacing
from hica_server.report import figures, pictures
from hica_server.report.extras import Extras
from hica_server.report.gain_figure import gain

METRICS = {
    "balanced_accuracy": "Balanced accuracy",
    "accuracy": "Accuracy",
    "auroc": "Macro AUROC",
}
METHODS = {
    "local_only": ("Local only, mean", "each site trains on its own episode"),
    "pooled": ("Pooled", "one site holding every episode: what data sharing would give"),
    "linear_probe": ("Linear probe, pooled", "logistic regression on frozen features"),
    "zero_shot": ("Zero-shot", "class prompts, no training image"),
    "pixels": ("Pixels", "logistic regression on 16 × 16 pixels"),
}


def write_report(path: Path, result: dict[str, Any], study_toml: str, extras: Extras) -> None:
    """Write the report of a run as one HTML file, whole or not at all; an old one is replaced.

    `result` is the content of `result.json`, `study_toml` the resolved study. `extras` are empty
    where images may not be seen.

    Raises:
        StorageError: The file could not be written.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, amount=size_words, duration=duration, count=count)
    page = environment.get_template("report.html").render(view(result, study_toml, extras))
    try:
        with replacing(path) as part:
            part.write_text(page, encoding="utf-8")
    except OSError as error:
        raise StorageError(
            f"{path}: report could not be written: {error.strerror}; "
            "free disk space or choose another folder, then run again"
        ) from None


def view(result: dict[str, Any], study_toml: str, extras: Extras) -> dict[str, Any]:
    """Everything the template shows, in the order of the page."""
    sites: dict[str, Any] = result.get("sites") or {}
    rounds: list[dict[str, Any]] = result.get("rounds") or []
    per_site: dict[str, Any] = result.get("per_site") or {}
    names = class_names(study_toml, sites)
    comparison = compared(result)
    return {
        "css": (Path(__file__).parent / "report.css").read_text(encoding="utf-8"),
        "study": result.get("study") or "study",
        "date": result.get("date") or datetime.date.today().isoformat(),
        "study_sha256": result.get("study_sha256")
        or hashlib.sha256(study_toml.encode()).hexdigest(),
        "seed": result.get("seed"),
        "sites": sites,
        "notes": [(name, words) for name, site in sites.items() for words in site.get("notes", [])],
        "withdrawn": _withdrawn(sites),
        "class_names": names,
        "metrics": METRICS,
        "final": result.get("final") or {},
        "findings": headline(result),
        "comparison": comparison,
        "same_images": len({row.values.get("n") for row in comparison}) == 1,
        "scale": scale([row.values for row in comparison]),
        "per_site": per_site,
        "site_scale": scale(list(per_site.values())),
        "worst": worst_site(per_site),
        "curves": figures.loss_curves(rounds, list(sites)),
        "confusions": confusions(per_site, len(names)),
        "gain": gain(result.get("gain") or {}),
        "reliability": figures.reliability(
            {name: each.get("calibration") or [] for name, each in per_site.items()},
            ece_of(result),
        ),
        "embedding": extras.embedding and figures.embedding(extras.embedding, names, list(sites)),
        "examples": [
            {
                "outlined": pictures.png_uri(pictures.with_outlines(each)),
                "similarity": pictures.png_uri(pictures.with_similarity(each)),
                "range": (float(each.similarity.min()), float(each.similarity.max())),
                "example": each,
            }
            for each in extras.examples
        ],
        "clusters": [
            {
                "number": each.number,
                "size": each.size,
                "images": [
                    pictures.png_uri(pictures.resized(image, pictures.THUMBNAIL))
                    for image in each.images
                ],
            }
            for each in extras.clusters
        ],
        "traffic": figures.traffic(rounds),
        "bytes_up": sum(each.get("bytes_up") or 0 for each in rounds),
        "bytes_down": sum(each.get("bytes_down") or 0 for each in rounds),
        "seconds": sum(each.get("seconds") or 0.0 for each in rounds),
        "rounds": rounds,
        "attendance": figures.attendance(rounds, list(sites)),
        "incidents": incidents(rounds),
        "study_toml": study_toml,
        "provenance": provenance(result),
        "again": recipe(study_toml),
    }


@dataclass(frozen=True)
class Row:
    """A line of the comparison of methods."""

    label: str
    note: str
    values: dict[str, Any]
    ours: bool


def compared(result: dict[str, Any]) -> list[Row]:
    """The federation and its baselines, best balanced accuracy first; empty without baselines."""
    rows = []
    for name, values in (result.get("baselines") or {}).items():
        label, note = METHODS.get(name, (name.replace("_", " ").capitalize(), ""))
        if values:
            rows.append(Row(label, note, values, ours=False))
    if rows and result.get("final"):
        rows.append(Row("Federated HiCA", "no image left its site", result["final"], ours=True))
    return sorted(rows, key=lambda row: -(value_of(row.values, "balanced_accuracy") or 0.0))


def value_of(values: dict[str, Any] | None, metric: str) -> float | None:
    """The value of a metric, or None where it is undefined or was not measured."""
    interval = (values or {}).get(metric)
    return None if interval is None else interval["value"]


def headline(result: dict[str, Any]) -> list[str]:
    """The result in sentences: against the local models, pooled training, and the worst site."""
    ours = value_of(result.get("final"), "balanced_accuracy")
    if ours is None:
        return []
    gaps = []
    for name, other in (
        ("local_only", "the sites' own models"),
        ("pooled", "training on pooled images"),
    ):
        theirs = value_of((result.get("baselines") or {}).get(name), "balanced_accuracy")
        if theirs is not None:
            points = 100 * (ours - theirs)
            gaps.append(f"{abs(points):.1f} points {'above' if points >= 0 else 'below'} {other}")
    sentences = [f"Balanced accuracy is {' and '.join(gaps)}."] if gaps else []
    per_site = result.get("per_site") or {}
    worst = worst_site(per_site)
    if worst is not None:
        value = percent(value_of(per_site[worst], "balanced_accuracy"))
        sentences.append(f"The weakest site is {worst} at {value} %.")
    return sentences


def worst_site(per_site: dict[str, Any]) -> str | None:
    """The site of lowest balanced accuracy, where there are several to compare."""
    values = {name: value_of(each, "balanced_accuracy") for name, each in per_site.items()}
    known = {name: value for name, value in values.items() if value is not None}
    return min(known, key=lambda name: known[name]) if len(known) > 1 else None


def scale(tables: list[dict[str, Any]]) -> float:
    """Left end of a table's interval bars: the lowest limit, rounded down to a tenth."""
    lows = [table[name]["low"] for table in tables for name in METRICS if table.get(name)]
    return min(0.9, int(10 * min(lows, default=0.0)) / 10)


def _withdrawn(sites: dict[str, Any]) -> str:
    """How many patients withdrew at which site, or "some"; empty where nobody is known to have."""
    counts = {name: site.get("withdrawn") for name, site in sites.items()}
    return ", ".join(f"{name} {count}" for name, count in counts.items() if count)


def class_names(study_toml: str, sites: dict[str, Any]) -> list[str]:
    """Classes in the study's order; from the sites' counts where the text is no study."""
    try:
        return [str(each["name"]) for each in _table(study_toml)["classes"]]
    except (KeyError, TypeError):
        return list(dict.fromkeys(name for site in sites.values() for name in site["classes"]))


def _table(study_toml: str) -> dict[str, Any]:
    """The study as a table; an empty one where the text is none."""
    try:
        return tomllib.loads(study_toml)
    except tomllib.TOMLDecodeError:
        return {}


def ece_of(result: dict[str, Any]) -> dict[str, float]:
    """Calibration error of each site, and of all where the result has it."""
    errors = {name: each.get("ece") for name, each in (result.get("per_site") or {}).items()}
    errors["all sites"] = (result.get("final") or {}).get("ece")
    return {name: error for name, error in errors.items() if error is not None}


def confusions(per_site: dict[str, Any], class_count: int) -> list[dict[str, Any]]:
    """Confusion matrices [C][C], the sum over sites first; cells as count and share of the row."""
    matrices = {name: each.get("confusion") for name, each in per_site.items()}
    shown = {name: matrix for name, matrix in matrices.items() if matrix}
    if len(shown) > 1:
        total = [
            [sum(matrix[i][j] for matrix in shown.values()) for j in range(class_count)]
            for i in range(class_count)
        ]
        title = "All sites" if len(shown) == len(matrices) else f"{len(shown)} sites shown"
        shown = {title: total} | shown
    return [
        {
            "name": name,
            "rows": [[(n, n / sum(row) if sum(row) else 0.0) for n in row] for row in matrix],
        }
        for name, matrix in shown.items()
    ] + [{"name": name, "rows": None} for name, matrix in matrices.items() if not matrix]


def incidents(rounds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Who was refused or did not answer, round by round."""
    found = []
    for each in rounds:
        where = {"stage": each["stage"], "round": figures.round_of(each)}
        for name, reason in (each.get("refused") or {}).items():
            found.append({**where, "site": name, "what": "refused", "reason": reason})
        for name in each.get("missing") or []:
            found.append({**where, "site": name, "what": "no answer", "reason": ""})
    return found


def provenance(result: dict[str, Any]) -> list[tuple[str, str]]:
    """What else one needs to know to run the study again."""
    known = [
        ("seed", result.get("seed")),
        ("device", result.get("device")),
        ("checkpoint", result.get("checkpoint")),
        ("text bank, sha256", result.get("text_bank_sha256")),
        *(result.get("versions") or {}).items(),
    ]
    return [(name, str(value)) for name, value in known if value is not None]


def recipe(study_toml: str) -> list[str]:
    """Commands that run the study again, which was saved as `study.toml`.

    A study alone says nothing of its sites, so `hica-sim` cannot run it.
    """
    simulation = _table(study_toml).get("simulation")
    if simulation is None:
        return [
            "hica-server init again",
            "cp study.toml again/study.toml",
            "hica-server provision again SITE...",
            "hica-server run again",
        ]
    data = "" if "phantoms" in simulation else " --data IMAGES"
    return [f"hica-sim run study.toml{data} --out runs/again"]


def percent(value: float | None) -> str:
    """`0.8531` as `85.3`, without the sign."""
    return "–" if value is None else f"{100 * value:.1f}"


def duration(seconds: float) -> str:
    """`75.3` as `1 min 15 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def count(value: int | None) -> str:
    """A count, or `few` where a class of few patients keeps the site from telling it."""
    return "few" if value is None else f"{value:,}".replace(",", "\u202f")
