"""The report of a run as a coordinator can write it: without pictures, as it holds no images."""

from pathlib import Path

import tomli_w

from hica.study import Study, validated
from hica_server.report.extras import Extras
from hica_server.report.html import write_report
from hica_server.report.run_file import read_run_file


def write_run_report(run: Path) -> Path:
    """Write `report.html` of a finished run from `result.json` and `study.json`; its path.

    Raises:
        ConfigurationError: The run has not come to its end, or a file of it is damaged.
    """
    result = read_run_file(run, "result.json")
    study = validated(Study, read_run_file(run, "study.json"), str(run / "study.json"))
    resolved = tomli_w.dumps(study.model_dump(mode="json", exclude_none=True))
    report = run / "report.html"
    write_report(report, result, resolved, Extras())
    return report
