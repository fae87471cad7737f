"""Tables of an audit: Markdown for people, CSV with every number."""

from pathlib import Path
from typing import Any

from rich.table import Table

from hica.storage import write_atomically
from hica_simulations.experiments import pages
from hica_simulations.experiments.audit.active import REQUESTS

SEEN = {"prototypes": "class sums", "update": "updates", "model": "model only"}
HEAD = [
    "setting",
    "seen",
    "claimed ε",
    "ε ≥",
    "ε ≥, Gaussian",
    "insider: AUC",
    "TPR at 1 % FPR",
    "outsider: AUC",
    "TPR at 1 % FPR",
]
SHORT_HEAD = ["setting", "seen", "claimed", "ε ≥", "Gaussian", "insider", "TPR", "outsider", "TPR"]


def write_tables(result: dict[str, Any], out: Path) -> None:
    """Write `audit.md` and `audit.csv`."""
    write_atomically(out / "audit.md", as_markdown(result).encode())
    pages.write_csv(result["membership"], out / "audit.csv")


def as_markdown(result: dict[str, Any]) -> str:
    """Membership, reconstruction and crafted requests as Markdown, and what they come to."""
    first, *rest = (
        pages.markdown(pages.Table(head, rows), "---")
        for head, rows in (
            (HEAD, membership_rows(result)),
            (REBUILT_HEAD, reconstruction_rows(result)),
            (ACTIVE_HEAD, active_rows(result)),
        )
        if rows
    )
    return "\n".join([first, *(f"{said}\n" for said in remarks(result)), *rest])


def tables(result: dict[str, Any]) -> list[Table]:
    """The same tables for a terminal, too narrow for intervals."""
    found = []
    for title, head, rows in (
        ("was the odd patient in?", SHORT_HEAD, membership_rows(result)),
        ("cosine of what was recovered with the truth", REBUILT_HEAD, reconstruction_rows(result)),
        ("what an active coordinator recovers", ACTIVE_HEAD, active_rows(result)),
    ):
        if not rows:  # no adapter is trained, so that none was attacked
            continue
        table = Table(title=f"{result['study']}: {title}", padding=(0, 0), collapse_padding=True)
        for number, name in enumerate(head):
            table.add_column(name, justify="left" if number < 2 else "right")
        for row in rows:
            table.add_row(*(cell.split(" [")[0] for cell in row))
        found.append(table)
    return found


def membership_rows(result: dict[str, Any]) -> list[list[str]]:
    """A row for each setting and thing seen: of the odd patient, both attackers side by side."""
    of = {
        (row["setting"], row["seen"], row["attacker"]): row
        for row in result["membership"]
        if row["canary"] == "odd"
    }
    rows = []
    for name, title in result["settings"].items():
        for seen, words in SEEN.items():
            insider, outsider = of[name, seen, "insider"], of[name, seen, "outsider"]
            claimed = "∞" if insider["claimed"] is None else f"{insider['claimed']:.2f}"
            bounds = [_capped(insider, kind) for kind in ("", "gaussian_")]
            found = [
                text for row in (insider, outsider) for text in (f"{row['auc']:.3f}", _rate(row))
            ]
            rows.append([title, words, claimed, *bounds, *found])
    return rows


REBUILT_HEAD = ["setting", "attack", "images", "cosine [95 %]", "a guess"]


def reconstruction_rows(result: dict[str, Any]) -> list[list[str]]:
    """A row for each setting, attack and number of images."""
    return [
        [
            result["settings"][row["setting"]],
            row["attack"],
            str(row["images"]),
            f"{row['cosine']:.2f} [{row['low']:.2f}, {row['high']:.2f}]",
            f"{row['guess']:.2f}",
        ]
        for row in result["reconstruction"]
    ]


ACTIVE_HEAD = [
    "setting",
    "request",
    "asked",
    "answered",
    "images",
    "cosine > 0.99",
    "> 0.9",
    "best",
    "a guess",
]


def active_rows(result: dict[str, Any]) -> list[list[str]]:
    """A row for each setting and kind of request; recovered images are means over studies."""
    return [
        [
            result["settings"][row["setting"]],
            REQUESTS[row["request"]],
            str(row["asked"]),
            str(row["answered"]),
            str(row["images"]),
            f"{row['found']:.1f} [{row['most']} at most]",
            f"{row['near']:.1f}",
            f"{row['best']:.2f}" if row["answered"] else "-",
            f"{row['guess']:.2f}",
        ]
        for row in result["active"]
    ]


def remarks(result: dict[str, Any]) -> list[str]:
    """What the numbers come to, in sentences."""
    decisive = [row for row in result["membership"] if row["decisive"]]
    limits = {row["seen"]: row for row in decisive}
    said = [
        f"Bounds hold at 95 % confidence, for δ = {result['delta']:g}. * no attack can prove more "
        "with so many trials: "
        + "; ".join(
            f"{SEEN[seen]}, {2 * row['trials']} trials, half of them to choose the threshold, "
            f"ε ≥ {row['ceiling']:.2f}, Gaussian {row['gaussian_ceiling']:.1f}"
            for seen, row in limits.items()
        )
        + "."
    ]
    if result["refuted"]:
        names = ", ".join(result["settings"][name] for name in result["refuted"])
        said.append(f"REFUTED: {names}. More leaves than is claimed: do not run private studies.")
    else:
        said.append("No claim was refuted. That proves none of them: other attacks may do better.")
    missed = [SEEN[seen] for seen, caught in result["catches_control"].items() if not caught]
    if missed or not result["finds_members"]:
        said.append(
            f"The audit is too weak to tell: a tenth of the noise went unnoticed in "
            f"{', '.join(missed) or 'nothing'}, and without privacy the odd patient was "
            f"{'found' if result['finds_members'] else 'not found'}. Raise --trials."
        )
    else:
        said.append(
            "The audit can tell: it noticed, in class sums and in updates, that the control adds a "
            "tenth of its noise, and it found the odd patient where nothing protects it."
        )
    return said + _active_remarks(result)


def _active_remarks(result: dict[str, Any]) -> list[str]:
    """What crafted requests came to; nothing where none were made."""
    of = {(row["setting"], row["request"]): row for row in result["active"]}
    if ("none", "unchecked") not in of:
        return []
    open_, allowed = of["none", "unchecked"], of["none", "allowed"]
    kept = ("refused", "window", "again")
    answered = sum(row["answered"] for (_, request), row in of.items() if request in kept)
    return [
        f"Crafted weights recover {open_['found']:.0f} of {open_['images']} images where nothing "
        f"is checked; of such requests, and of repeated ones, sites have answered {answered}. "
        f"Within what is allowed and without privacy, {allowed['found']:.1f} of "
        f"{allowed['images']} are recovered in a study, {allowed['most']} at most."
    ]


def _capped(row: dict[str, Any], kind: str) -> str:
    """A bound, with a star where no more could be shown."""
    bound = row[f"{kind}bound"]
    return f"{bound:.2f}" + (" *" if bound > 0.999 * row[f"{kind}ceiling"] else "")


def _rate(row: dict[str, Any]) -> str:
    """`12 % [9, 16]`."""
    value, low, high = (100 * row[name] for name in ("tpr", "tpr_low", "tpr_high"))
    return f"{value:.0f} % [{low:.0f}, {high:.0f}]"
