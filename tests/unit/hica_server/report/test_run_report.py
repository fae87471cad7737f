import pytest

from hica.errors import ConfigurationError
from hica.wire.checkpoint import write_json
from hica_server.report.run_report import write_run_report


def test_a_run_that_has_not_ended_has_no_report(tmp_path, toy_study):
    write_json(tmp_path / "study.json", toy_study().model_dump(mode="json"))
    with pytest.raises(ConfigurationError, match=r"result\.json: no such file"):
        write_run_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_the_report_names_every_site_that_missed_an_exchange(tmp_path, toy_study):
    study = toy_study()
    interval = {"value": 0.5, "low": 0.4, "high": 0.6}
    missed = {
        "stage": "alignment",
        "round": 1,
        "seconds": 1.0,
        "bytes_up": 1,
        "bytes_down": 1,
        "participants": ["north"],
        "missing": ["south"],
        "refused": {"east": "loss is nan"},
        "loss": 0.5,
    }
    result = {
        "study": "toy",
        "study_sha256": study.sha256,
        "seed": 0,
        "sites": {
            name: {"labelled": 4, "unlabelled": 6, "test": 6, "classes": {}}
            for name in ("north", "south", "east")
        },
        "rounds": [missed],
        "final": {"accuracy": interval, "balanced_accuracy": interval, "auroc": interval},
        "per_site": {},
        "baselines": {},
        "versions": {},
    }
    write_json(tmp_path / "result.json", result)
    write_json(tmp_path / "study.json", study.model_dump(mode="json"))
    page = write_run_report(tmp_path).read_text()
    for words in ("south", "east", "loss is nan"):
        assert words in page
