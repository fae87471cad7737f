"""The picture of an audit: ROC curves on logarithmic axes, and proven beside claimed ε.

Logarithmic axes show the few false alarms at which an attack is of use (Carlini et al., 2022).
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hica.storage import write_atomically

COLOURS = {
    "none": "#d55e00",
    "secure": "#e69f00",
    "dp-8": "#009e73",
    "dp-3": "#56b4e9",
    "dp-1": "#0072b2",
    "control": "#8a8a8a",
}
"""Okabe and Ito's colours, which colour-blind readers can tell apart."""
INK, GREY = "#1c2733", "#66727f"
LOWEST = {"prototypes": 1e-3, "update": 1e-2}
"""Where the axes begin: about the least rate that the trials can tell."""
TITLES = {"prototypes": "class sums", "update": "updates"}


def plot(result: dict[str, Any], curves: dict[str, Any], path: Path) -> None:
    """Write the picture of `audit.json` as PNG.

    `curves` holds (FPR, TPR) by `setting/seen/attacker/canary`.
    """
    figure = Figure(figsize=(11, 7.4), layout="constrained")
    grid = figure.subplots(2, 3, width_ratios=[1, 1, 1.15])
    for row, seen in enumerate(("prototypes", "update")):
        for column, attacker in enumerate(("insider", "outsider")):
            axes = grid[row, column]
            _curves(axes, result, curves, seen, attacker)
            axes.set_title(f"{TITLES[seen]}, {attacker}", loc="left", fontsize=10, color=INK)
        _bars(grid[row, 2], result, seen)
        title = f"{TITLES[seen]}: proven beside claimed ε"
        grid[row, 2].set_title(title, loc="left", fontsize=10, color=INK)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=100)
    write_atomically(path, data.getvalue())


def _curves(
    axes: Axes, result: dict[str, Any], curves: dict[str, Any], seen: str, attacker: str
) -> None:
    """ROC of the odd patient, a line for each setting."""
    low = LOWEST[seen]
    chance = np.geomspace(low, 1, 50)
    axes.plot(chance, chance, color="#b4bdc6", linewidth=0.8, linestyle=":")
    for name, title in result["settings"].items():
        false, true = curves[f"{name}/{seen}/{attacker}/odd"]
        axes.step(
            np.maximum(false, low),
            np.maximum(true, low),
            where="post",
            color=COLOURS.get(name, INK),
            linestyle="--" if name == "control" else "-",
            linewidth=1.6,
            label=title,
        )
    axes.set(xscale="log", yscale="log", xlim=(low, 1), ylim=(low, 1.15))
    axes.set_xlabel("false positive rate", color=GREY)
    axes.set_ylabel("true positive rate", color=GREY)
    axes.grid(color="#edf0f3")
    axes.spines[["top", "right"]].set_visible(False)


def _bars(axes: Axes, result: dict[str, Any], seen: str) -> None:
    """Bars of the insider's two bounds on the odd patient, and the claim as a line over them."""
    rows = [row for row in result["membership"] if row["decisive"] and row["seen"] == seen]
    top = 1.6 * max(row["claimed"] or 0.0 for row in rows)
    for place, row in enumerate(rows):
        colour = COLOURS.get(row["setting"], INK)
        for shift, key, alpha in ((-0.19, "bound", 1.0), (0.19, "gaussian_bound", 0.45)):
            height = min(row[key], top)
            axes.bar(place + shift, height, 0.36, color=colour, alpha=alpha)
            beyond = " ↑" if row[key] > top else ""
            at, text = (place + shift, height), f"{row[key]:.1f}{beyond}"
            axes.annotate(text, at, ha="center", va="bottom", fontsize=7.5, color=GREY)
        if row["claimed"] is not None:
            axes.hlines(row["claimed"], place - 0.45, place + 0.45, color=INK, linewidth=1.6)
    names = [row["setting"].replace("dp-", "ε = ") for row in rows]
    axes.set_xticks(range(len(rows)), names, fontsize=8.5)
    axes.set(ylim=(0, 1.08 * top))
    axes.set_ylabel("ε: line claimed, full bar proven,\npale proven if Gaussian", color=GREY)
    axes.spines[["top", "right"]].set_visible(False)
