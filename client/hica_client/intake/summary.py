"""What an import comes to, in counts: everything that was read was taken, or says why not."""

from collections import Counter
from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from hica.printable import printable
from hica_client.intake.counts import Summary
from hica_client.intake.meant import Folders
from hica_client.intake.merge import Merged
from hica_client.intake.notes import notes_of
from hica_client.intake.register import CHOSEN, PICTURE, Register
from hica_client.intake.rows import RowMaker
from hica_client.intake.scan import Scanned


def summary_of(
    register: Register,
    maker: RowMaker,
    merged: Merged,
    scanned: Scanned,
    failures: Mapping[str, int],
    meant: Folders,
) -> Summary:
    """Count what came of an import."""

    def count(what: str) -> int:
        query = f"SELECT {what} FROM sources LEFT JOIN pictures USING (picture) WHERE run = ? AND "
        return int(register.value(query + CHOSEN, register.run) or 0)

    def counts(what: str, where: str) -> dict[str, int]:
        return dict(
            register.rows(
                f"SELECT {what}, count(*) FROM sources LEFT JOIN pictures USING (picture) "
                f"WHERE run = ? AND {where} GROUP BY 1 ORDER BY 2 DESC, 1",
                register.run,
            )
        )

    skipped = Counter(counts("reason", "reason != ''"))
    skipped.update(counts("left_out", f"{PICTURE} AND left_out != ''"))
    taken = count("count(*)")
    summary = Summary(
        read=register.value("SELECT count(*) FROM sources WHERE run = ?", register.run),
        taken=taken,
        reports=sum(counts("''", "text != ''").values()),
        reports_without_picture=register.value(
            "SELECT count(*) FROM sources AS report WHERE run = ? AND text != '' AND NOT EXISTS "
            "(SELECT 1 FROM sources WHERE run = ? AND study != '' AND study = report.study AND "
            f"picture != '' AND {CHOSEN})",
            *(register.run, register.run),
        ),
        skipped=dict(skipped.most_common()),
        rows={
            "added": merged.added,
            "updated": len(merged.replaced),
            "edited": merged.edited,
        },
        patients=count("count(DISTINCT nullif(owner, ''))"),
        without_patient=count("sum(owner = '')"),
        by_study=count("sum(dicom = 1 AND bare = '' AND owner != '' AND owner = sources.patient)"),
        by_folder=count("sum(owner != '' AND owner != sources.patient)"),
        labels=dict(sorted(maker.labelled.items())),
        unlabelled=taken - sum(maker.labelled.values()),
        reported=maker.reported,
        near_duplicates=sum(
            1
            for picture in maker.marks
            if maker.register.value(
                f"SELECT 1 FROM sources WHERE picture = ? AND run = ? AND {CHOSEN}",
                picture,
                register.run,
            )
        ),
        burned_in=count("sum(burned)"),
        lettered=count("sum(lettered AND NOT burned)"),
        decoded=counts("way", CHOSEN),
    )
    summary.notes += notes_of(summary, maker, scanned, failures, meant)
    return summary


def show(summary: Summary, console: Console) -> None:
    """Print the counts as tables, and the notes."""
    console.print(
        _table(
            "read",
            {
                "pictures taken": summary.taken,
                "reports read": summary.reports,
                **{f"skipped: {reason}": count for reason, count in summary.skipped.items()},
                "together": summary.read,
            },
        )
    )
    facts = {
        "patients": summary.patients,
        "near-duplicates": summary.near_duplicates,
        "with report": summary.reported,
        **{f"label {name}": count for name, count in summary.labels.items()},
        "without label": summary.unlabelled,
        **{f"rows {name}": count for name, count in summary.rows.items()},
    }
    console.print(_table("taken", facts))
    for note in summary.notes:
        console.print(f"[yellow]note[/] {printable(note)}", soft_wrap=True, highlight=False)


def _table(title: str, counts: Mapping[str, int]) -> Table:
    table = Table(title=title, title_justify="left", show_header=False, box=None)
    table.add_column(overflow="fold")
    table.add_column(justify="right")
    for name, count in counts.items():
        table.add_row(printable(name), f"{count:,}")
    return table
