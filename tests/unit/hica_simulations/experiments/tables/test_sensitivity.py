import pytest

from hica_simulations.experiments.tables import sensitivity
from hica_simulations.experiments.tables.cells import OURS


@pytest.mark.parametrize(
    "name",
    ["breast_ultrasound", "breast_lesions", "pneumonia", "pneumonia_kinds", "tuberculosis"],
)
def test_one_setting_is_changed_at_a_time(loaded, name):
    lines = loaded(sensitivity, name)
    own = lines.pop(OURS).study.alignment.model_dump()
    for scenario in lines.values():
        now = scenario.study.alignment.model_dump()
        assert sum(now[key] != own[key] for key in own) == 1
    assert lines["λ1 = 0.25"].study.alignment.local_weight == 0.25
    assert lines["τ = 0.2"].study.alignment.temperature == 0.2
    assert len(lines) == 4 + 4 + 2 + 2


def test_the_own_value_has_no_line_of_its_own(study, tmp_path):
    path = tmp_path / "s.toml"
    path.write_text(study("pneumonia").read_text().replace("shots = 20", "margin = 0.4"))
    names = [cell.labels["method"] for cell in sensitivity.cells([path], [5], [3])]
    assert "δ = 0.4" not in names and "δ = 0.1" in names
