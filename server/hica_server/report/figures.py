"""Figures of the report, each returned as the data URI of an SVG image.

Lines are labelled at their ends instead of in legends; the colours are those of Okabe and Ito,
which colour-blind readers can tell apart. Names of sites and classes are drawn as they are:
mathtext is off, since a `$` in a name would otherwise be parsed.
"""

import base64
import io
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hica.method.reliability import CALIBRATION_BINS
from hica.printable import byte_unit
from hica.wire.messages import shown_round
from hica_server.report.extras import Embedding

INK, GREY, ALERT = "#1c2733", "#66727f", "#c8501e"
ACCENT, ACCENT_LIGHT = "#0b6e99", "#a9cfe0"
SERIES = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#6b4c9a", "#8a8a00"]

Lines = dict[str, list[tuple[int, float]]]
Bin = dict[str, Any]

WIDTH = 10.8  # inches; 1037 CSS pixels, the report's column

_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.labelcolor": GREY,
    "axes.edgecolor": "#b4bdc6",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#edf0f3",
    "grid.linewidth": 0.8,
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.w_pad": 0.1,
    "svg.fonttype": "none",
    "svg.hashsalt": "hica",
}
styled = matplotlib.rc_context(_STYLE)  # a decorator as well as a context
_FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def uri(figure: Figure) -> str:
    """The figure as an SVG data URI whose text is set in the reader's own system font."""
    buffer = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the browser has it
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    svg = buffer.getvalue().replace("'DejaVu Sans'", _FONTS)
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


@styled
def loss_curves(rounds: Sequence[dict[str, Any]], sites: Sequence[str]) -> str | None:
    """Loss per round of the federation and of each site, one panel a stage; accuracy beside it."""
    colours = _colours(sites)
    panels = []
    for stage in dict.fromkeys(each["stage"] for each in rounds):
        of_stage = [each for each in rounds if each["stage"] == stage]
        overall = _series(of_stage, lambda each: {"federation": each.get("loss")})
        of_sites = _series(of_stage, lambda each: each.get("site_loss") or {})
        if overall or of_sites:
            panels.append((f"{stage}: loss", overall, of_sites, len(of_stage)))
    evaluated = [each for each in rounds if each.get("accuracy")]
    if evaluated:
        accuracy = _series(evaluated, lambda each: each["accuracy"], scale=100)
        panels.append(("evaluation: accuracy, %", {}, accuracy, len(evaluated)))
    if not panels:
        return None
    figure = Figure(figsize=(WIDTH, 3.3))
    ratios = [max(4, min(length, 40)) for *_, length in panels]
    grid = figure.subplots(1, len(panels), squeeze=False, width_ratios=ratios)
    for axes, (title, overall, of_sites, _) in zip(grid[0], panels, strict=True):
        _draw_lines(axes, overall, of_sites, colours)
        axes.set_title(title)
        axes.set_xlabel("round")
    return uri(figure)


def _series(
    rounds: Sequence[dict[str, Any]], pick: Callable[[dict[str, Any]], Any], scale: float = 1.0
) -> Lines:
    """Points (number of the round from 1, value) of each name that `pick` finds in the rounds."""
    lines: Lines = {}
    for number, each in enumerate(rounds, start=1):
        for name, value in pick(each).items():
            if value is not None and math.isfinite(value):
                lines.setdefault(name, []).append((number, scale * value))
    return lines


def _colours(names: Sequence[str]) -> dict[str, str]:
    """One colour a name; where there are more names than colours, grey for all."""
    many = len(names) > len(SERIES)
    return {name: "#b9c2cb" if many else SERIES[i] for i, name in enumerate(names)}


def _draw_lines(axes: Axes, overall: Lines, sites: Lines, colours: dict[str, str]) -> None:
    ends: list[tuple[float, str, str]] = []
    last = max(x for line in (overall | sites).values() for x, _ in line)
    for name, line in sites.items():
        colour = colours.get(name, GREY)
        axes.plot(*zip(*line, strict=True), color=colour, linewidth=1.3, marker=_dot(line))
        if len(sites) <= len(SERIES):
            ends.append((line[-1][1], shortened(name), colour))
    for name, line in overall.items():
        axes.plot(*zip(*line, strict=True), color=INK, linewidth=2.4, marker=_dot(line))
        ends.append((line[-1][1], name, INK))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    axes.margins(x=0.02)
    bottom, top = axes.get_ylim()
    heights = spread([value for value, *_ in ends], 0.062 * (top - bottom))
    for (value, name, colour), height in zip(ends, heights, strict=True):
        axes.annotate(
            name,
            xy=(last, value),
            xytext=(1.02, (height - bottom) / (top - bottom)),
            textcoords="axes fraction",
            color=colour,
            fontweight="bold" if colour == INK else "normal",
            va="center",
        )
    axes.set_ylim(bottom, top)


def _dot(line: Sequence[object]) -> str:
    """A line of one point would not be seen without a marker."""
    return "o" if len(line) == 1 else ""


def spread(values: Sequence[float], gap: float) -> list[float]:
    """Heights for labels near `values`, in the same order and at least `gap` apart.

    Neighbours that collide form a group, which is centred on the mean of its values.
    """

    def bottom(group: list[int]) -> float:
        return sum(values[i] for i in group) / len(group) - gap * (len(group) - 1) / 2

    groups: list[list[int]] = []
    for index in sorted(range(len(values)), key=lambda i: values[i]):
        groups.append([index])
        while len(groups) > 1:
            below, above = groups[-2:]
            if bottom(above) >= gap + (bottom(below) + gap * (len(below) - 1)):
                break
            groups[-2:] = [below + above]
    result = [0.0] * len(values)
    for group in groups:
        for place, index in enumerate(group):
            result[index] = bottom(group) + place * gap
    return result


def shortened(name: str, length: int = 22) -> str:
    """A name that fits beside a line."""
    return name if len(name) <= length else name[: length - 1] + "…"


def pooled_bins(bins: Sequence[Bin]) -> list[Bin]:
    """Calibration bins of several sites joined where their mean confidence falls together."""
    joined: dict[int, list[Bin]] = {}
    for each in bins:
        index = min(int(each["confidence"] * CALIBRATION_BINS), CALIBRATION_BINS - 1)
        joined.setdefault(index, []).append(each)
    result = []
    for _, members in sorted(joined.items()):
        count = sum(each["count"] for each in members)
        mean = {
            key: sum(each["count"] * each[key] for each in members) / count
            for key in ("confidence", "accuracy")
        }
        result.append({"count": count, **mean})
    return result


@styled
def reliability(calibration: dict[str, list[Bin]], ece: dict[str, float]) -> str | None:
    """Accuracy against confidence: all sites, then each; the area of a dot shows its images."""
    shown = {name: bins for name, bins in calibration.items() if bins}
    if not shown:
        return None
    everything = pooled_bins([each for bins in shown.values() for each in bins])
    panels = {"all sites": everything} | shown if len(shown) > 1 else shown
    columns = 5
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(WIDTH, 2.45 * rows + 0.2))
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, (name, bins) in zip(grid.flat, panels.items(), strict=False):
        colour = INK if name == "all sites" else ACCENT
        _draw_reliability(axes, bins, colour)
        error = f"   ECE {100 * ece[name]:.1f} %" if name in ece else ""
        axes.set_title(shortened(name, 18), pad=14)
        axes.text(0, 1.03, error.strip(), transform=axes.transAxes, color=GREY, fontsize=8.5)
    for row in grid:
        row[0].set_ylabel("accuracy")
    for axes in grid.flat[max(0, len(panels) - columns) : len(panels)]:
        axes.set_xlabel("confidence")
        axes.tick_params(labelbottom=True)
    return uri(figure)


def _draw_reliability(axes: Axes, bins: list[Bin], colour: str) -> None:
    confidence = np.array([each["confidence"] for each in bins])
    accuracy = np.array([each["accuracy"] for each in bins])
    share = np.array([each["count"] for each in bins], dtype=float)
    share /= share.sum()
    axes.plot([0, 1], [0, 1], color="#b4bdc6", linewidth=1, dashes=(3, 3))
    axes.vlines(confidence, confidence, accuracy, color=ALERT, linewidth=1.6, alpha=0.55)
    axes.plot(confidence, accuracy, color=colour, linewidth=1)
    axes.scatter(
        confidence,
        accuracy,
        s=10 + 160 * share,
        color=colour,
        zorder=3,
        linewidths=0,
        clip_on=False,
    )
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), aspect="equal")
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])


@styled
def embedding(layout: Embedding, class_names: Sequence[str], sites: Sequence[str]) -> str:
    """Image features in the plane, coloured by class and, beside it, by site."""
    points, labels = np.asarray(layout.points), np.asarray(layout.labels)
    classes = [class_names[label] if label >= 0 else "" for label in labels]
    figure = Figure(figsize=(WIDTH, 4.8))
    left, right = figure.subplots(1, 2)
    _draw_points(left, points, classes, class_names)
    left.set_title("by class" + (", unlabelled in grey" if (labels < 0).any() else ""))
    _draw_points(right, points, list(layout.sites), sites)
    right.set_title("by site")
    return uri(figure)


def _draw_points(axes: Axes, points: Any, names: list[str], order: Sequence[str]) -> None:
    """Dots in one colour a name, drawn in the order of the points so that none covers the rest."""
    colours = _colours(order)
    axes.scatter(
        points[:, 0],
        points[:, 1],
        s=12,
        c=[colours.get(name, "#c9d0d7") for name in names],
        alpha=0.75,
        linewidths=0,
    )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.margins(0.04)
    if len(order) <= len(SERIES):
        dots = [axes.scatter([], [], s=30, color=colours[name]) for name in order]
        axes.legend(
            dots,
            [shortened(name) for name in order],
            labelcolor="linecolor",
            loc="upper center",
            bbox_to_anchor=(0.5, 0),
            ncols=4,
            frameon=False,
            handletextpad=0.1,
            columnspacing=1.4,
        )


@styled
def traffic(rounds: Sequence[dict[str, Any]]) -> str | None:
    """Bytes of every round, all sites together: up to the coordinator and down to the sites."""
    up = np.array([each.get("bytes_up") or 0 for each in rounds], dtype=float)
    down = np.array([each.get("bytes_down") or 0 for each in rounds], dtype=float)
    if not len(rounds) or not (up + down).any():
        return None
    divisor, unit = byte_unit((up + down).max())
    x = np.arange(len(rounds))
    figure = Figure(figsize=(WIDTH, 2.7))
    axes = figure.subplots()
    axes.bar(x, up / divisor, width=0.72, color=ACCENT)
    axes.bar(x, down / divisor, width=0.72, bottom=up / divisor, color=ACCENT_LIGHT)
    axes.set_ylabel(unit)
    axes.grid(axis="x", visible=False)
    _mark_stages(axes, rounds)
    return uri(figure)


@styled
def attendance(rounds: Sequence[dict[str, Any]], sites: Sequence[str]) -> str | None:
    """Sites by rounds: took part (filled), missed (open), refused (cross)."""
    if not rounds or not sites:
        return None
    row = {name: index for index, name in enumerate(sites)}
    size = float(np.clip(3200 / len(rounds), 12, 70))
    figure = Figure(figsize=(WIDTH, 0.8 + 0.27 * len(sites)))
    axes = figure.subplots()
    for kind, marker, face, edge in (
        ("participants", "s", ACCENT_LIGHT, "none"),
        ("missing", "s", "white", GREY),
        ("refused", "X", ALERT, "none"),
    ):
        places = [
            (x, row[name])
            for x, each in enumerate(rounds)
            for name in each.get(kind) or ()
            if name in row
        ]
        x, y = np.array(places).reshape(-1, 2).T
        axes.scatter(x, y, s=size, marker=marker, facecolors=face, edgecolors=edge)
    axes.set_yticks(range(len(sites)), [shortened(name, 28) for name in sites], color=INK)
    axes.set_ylim(len(sites) - 0.4, -0.6)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    _mark_stages(axes, rounds)
    return uri(figure)


def round_of(entry: dict[str, Any]) -> int | str:
    """The round of an exchange as people count it; a blank where the record has none."""
    return shown_round(entry["round"]) if entry.get("round") is not None else ""


def _mark_stages(axes: Axes, rounds: Sequence[dict[str, Any]]) -> None:
    """Name each stage above its first round, part stages by thin lines, number the rounds.

    Evaluations lie between the rounds of a stage; they are marked `e` and open no stage.
    """
    axes.set_xlim(-0.8, len(rounds) - 0.2)
    current = None
    for x, each in enumerate(rounds):
        if each["stage"] in (current, "evaluation"):
            continue
        current = each["stage"]
        if x:
            axes.axvline(x - 0.5, color="#b4bdc6", linewidth=0.8)
        axes.annotate(
            str(current),
            xy=(x - 0.4, 1.02),
            xycoords=("data", "axes fraction"),
            color=GREY,
            va="bottom",
        )
    step = max(1, round(len(rounds) / 30))
    ticks = range(0, len(rounds), step)
    shown = [rounds[x] for x in ticks]
    names = ["e" if each["stage"] == "evaluation" else round_of(each) for each in shown]
    axes.set_xticks(ticks, [str(name) for name in names], fontsize=8)
    axes.set_xlabel("round of its stage; e: evaluation")
