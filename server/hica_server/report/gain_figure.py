"""The figure of what joining gave: a bar a site, of points over training alone."""

from typing import Any

from matplotlib.figure import Figure

from hica_server.report.figures import ACCENT, ALERT, GREY, INK, WIDTH, shortened, styled, uri


@styled
def gain(gains: dict[str, dict[str, Any]]) -> str | None:
    """A bar a site: points over training alone, with paired intervals; None without sites."""
    if not gains:
        return None
    metrics = {"balanced_accuracy": "Balanced accuracy", "auroc": "AUROC"}
    names = list(gains)
    figure = Figure(figsize=(WIDTH, 1.0 + 0.42 * len(names)))
    grid = figure.subplots(1, len(metrics), sharey=True)
    for axes, (metric, title) in zip(grid, metrics.items(), strict=True):
        for row, name in enumerate(names):
            found = gains[name]["difference"][metric]
            if found is None:
                axes.annotate("–", (0, row), va="center")
                continue
            value, low, high = (100 * found[key] for key in ("value", "low", "high"))
            axes.barh(row, value, height=0.55, color=ALERT if value < 0 else ACCENT)
            axes.plot([low, high], [row, row], color=INK, linewidth=1.2)
            ends = [100 * gains[name][model][metric]["value"] for model in ("alone", "personal")]
            axes.annotate(
                f"{ends[0]:.1f} → {ends[1]:.1f}",
                xy=(max(high, 0), row),
                xytext=(6, 0),
                textcoords="offset points",
                va="center",
                color=GREY,
            )
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_title(f"{title}: points over training alone")
        axes.set_yticks(range(len(names)), [shortened(name) for name in names])
        axes.grid(visible=False, axis="y")
        axes.margins(x=0.3)  # the words beside the longest bar
    grid[0].invert_yaxis()
    return uri(figure)
