"""What a person sees of a deployed run: how far it is while it goes on, a table at its end."""

import time
from collections.abc import Mapping
from typing import Any, Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from hica.printable import percent, points, printable
from hica.progress import console, time_in_log
from hica_server.progress import read_progress
from hica_server.settings import Folder

METHODS = {"zero_shot": "zero-shot (texts only)", "federated": "HiCA federated"}
"""What a coordinator measures, and its title in the table."""


class Display:
    """`progress.json` as a bar on a terminal, a line per step in a log.

    Both have a line per site that was left out.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._started = time.monotonic()
        self._said: dict[str, str] = {}
        columns = (
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
        )
        self._bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._bar.add_task("starting", total=None)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def refresh(self) -> None:
        """Show what has changed; to be called about twice a second."""
        now = read_progress(self._folder)
        if "step" not in now:
            return
        number, of = now.get("number", 0), now.get("of", 0)
        self._bar.update(self._task, description=now["step"], completed=number, total=of or None)
        if not console.is_terminal:
            self._say("step", f"[{number + 1}/{of}] {now['step']}" if of else now["step"])
        self._say("left out", left_out(now))

    def _say(self, topic: str, text: str) -> None:
        """Print what has not just been said."""
        if text and text != self._said.get(topic):
            elapsed = time.monotonic() - self._started
            line = f"{time_in_log()}{printable(text)} ({elapsed:.0f} s)"
            console.print(line, highlight=False, soft_wrap=True)
        self._said[topic] = text


def left_out(progress: dict[str, Any]) -> str:
    """Which sites the last exchange went on without, and why; empty where none."""
    reasons = [f"{site} is missing" for site in progress.get("missing", [])]
    reasons += [f"{site}: {why}" for site, why in progress.get("refused", {}).items()]
    if not reasons:
        return ""
    exchange = f"{progress['stage']} round {progress['round']}" if "stage" in progress else "start"
    return f"{exchange}: {'; '.join(reasons)}"


def final_table(result: dict[str, Any], titles: Mapping[str, str] = METHODS) -> Table:
    """The content of `result.json`: methods by metrics, each with its 95 % interval.

    `titles` names the methods that are shown, in their order: name → title. Where they were not
    measured on the same number of images, each says on how many.
    """
    table = Table(title=printable(f"{result['study']}, seed {result['seed']}"))
    table.add_column("method")
    names = ("accuracy", "balanced accuracy", "AUROC")
    for name in names:
        table.add_column(f"{name} % [95 %]", justify="right")
    measured = {**result["baselines"], "federated": result["final"]}
    shown = {key: measured[key] for key in titles if key in measured}
    differ = len({values.get("n") for values in shown.values()}) > 1
    for key, values in shown.items():
        title = f"{titles[key]}, n = {values.get('n')}" if differ else titles[key]
        cells = [percent(values[metric]) for metric in ("accuracy", "balanced_accuracy", "auroc")]
        table.add_row(title, *cells, style="bold" if key == "federated" else "")
    return table


def gain_table(result: dict[str, Any]) -> Table | None:
    """What joining gave each site, alone → joined on its own patients; None where none can say."""
    gains: dict[str, Any] = result.get("gain") or {}
    if not gains:
        return None
    table = Table(title="what joining gave: alone → joined, on each site's own patients")
    table.add_column("site")
    names = {
        "balanced_accuracy": "balanced",
        "auroc": "AUROC",
    }  # a terminal has no room for more
    for name in names.values():
        table.add_column(f"{name} %", justify="right")
        table.add_column("points [95 %]", justify="right")
    for site, gain in gains.items():
        cells = []
        for metric in names:
            difference = gain["difference"][metric]
            if difference is None:
                cells += ["–", "–"]
                continue
            alone, joined = (100 * gain[model][metric]["value"] for model in ("alone", "personal"))
            cells += [f"{alone:.1f} → {joined:.1f}", points(difference)]
        table.add_row(printable(site), *cells)
    return table
