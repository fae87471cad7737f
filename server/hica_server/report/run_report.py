"""The report of a run as a coordinator can write it: without pictures, as it holds no images."""

from pathlib import Path

import tomli_w

from hica.study import Study, validated
from hica_server.report.extras import Extras
from hica_server.report.html import write_report
from hica_server.report.run_file import check_one_study, read_result, read_run_file, study_hash


def write_run_report(run: Path) -> Path:
    """Write `report.html` of a finished run from `result.json` and `study.json`; its path.

    Raises:
        ConfigurationError: The run has not come to its end, a file of it is damaged, or the two are
            of different studies.
    """
    result = read_result(run)
    table = read_run_file(run, "study.json")
    check_one_study(run, {"result.json": result["study_sha256"], "study.json": study_hash(table)})
    study = validated(Study, table, str(run / "study.json"))
    resolved = tomli_w.dumps(study.model_dump(mode="json", exclude_none=True))
    report = run / "report.html"
    write_report(report, result, resolved, Extras())
    return report
