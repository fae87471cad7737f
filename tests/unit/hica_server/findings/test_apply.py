import pytest

from hica.errors import ConfigurationError
from hica.study import load_study
from hica_server.findings.apply import apply_findings, read_study

SIMULATION = '\n[simulation]\n[[simulation.sites]]\nname = "north"\n'


@pytest.fixture
def new(study):
    return {name: [f"{name} texture"] for name in study.class_names}


def test_the_study_is_written_over_and_its_old_text_kept(study_file, new):
    old = study_file.read_text()
    applied = apply_findings(study_file, new, None)
    assert applied.kept == study_file.with_name("study.toml.bak")
    assert applied.kept.read_text() == old
    assert load_study(study_file) == applied.study
    assert {item.name: item.findings for item in applied.study.classes} == new
    assert applied.has_comments
    assert {line for line in old.splitlines() if "#" in line} <= set(
        study_file.read_text().splitlines()
    )


def test_an_earlier_text_is_not_lost_to_the_next_one(study_file, new):
    kept = apply_findings(study_file, new, None).kept
    first, second = kept.read_text(), study_file.read_text()
    with pytest.raises(ConfigurationError, match=r"study\.toml\.bak: exists .*move it away"):
        apply_findings(study_file, new, None)
    assert (kept.read_text(), study_file.read_text()) == (first, second)


def test_out_leaves_the_study_alone(study_file, new, tmp_path):
    old = study_file.read_text()
    applied = apply_findings(study_file, new, tmp_path / "new" / "study.toml")
    assert load_study(tmp_path / "new" / "study.toml") == applied.study
    assert (study_file.read_text(), applied.kept) == (old, None)
    for existing in (tmp_path / "new" / "study.toml", study_file):
        with pytest.raises(ConfigurationError, match="exists and is left alone; choose another"):
            apply_findings(study_file, new, existing)


def test_a_file_that_is_no_study_is_not_touched(study_file, new):
    study_file.write_text("[study]\n")
    with pytest.raises(ConfigurationError, match="classes: Field required"):
        apply_findings(study_file, new, None)
    assert study_file.read_text() == "[study]\n"
    assert not study_file.with_name("study.toml.bak").exists()


def test_a_simulation_stays_in_the_file(study_file, study, new):
    study_file.write_text(study_file.read_text() + SIMULATION)
    assert read_study(study_file) == study
    apply_findings(study_file, new, None)
    assert study_file.read_text().endswith(SIMULATION)
