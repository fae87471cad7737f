import pytest

from hica_simulations.experiments.tables import regions_table
from hica_simulations.experiments.tables.regions_table import BLENDED, DAMAGES, OWN, TABLE, variants
from hica_simulations.scenario import load_scenario


@pytest.mark.parametrize("name", ["breast_ultrasound", "breast_lesions", "phantoms"])
def test_a_study_with_masks_damages_them(loaded, name):
    lines = loaded(regions_table, name)
    for damage in DAMAGES:
        for line, blend in {f"masks: {damage}": 0, f"masks: {damage}; {BLENDED}": 0.25}.items():
            assert lines[line].simulation.masks == damage
            assert lines[line].study.alignment.region_blend == blend
    assert lines[f"{OWN}; {BLENDED}"].simulation.masks == "as drawn"
    assert "masks" not in lines  # the study's own
    assert set(TABLE.against) <= set(lines) and set(TABLE.against.values()) <= set(lines)


@pytest.mark.parametrize("name", ["pneumonia", "pneumonia_kinds", "tuberculosis", "chest_xray"])
def test_a_study_without_masks_does_not(loaded, name):
    lines = loaded(regions_table, name)
    assert lines["masks"].study.regions.method == "masks"
    assert "otsu" not in lines and not any(line.startswith("masks: ") for line in lines)
    assert lines[f"masks; {BLENDED}"].study.alignment.region_blend == 0.25
    assert lines["K = 8"].study.regions.count == 8 and lines["K = 8"].study.regions.method == "otsu"


def test_the_own_method_with_another_number_has_a_line(loaded, study):
    scenario = load_scenario(study("phantoms"), ["regions.count=2"])
    names = set(variants(scenario))
    assert "masks" in names and "K = 2" not in names


def test_methods_with_weights_are_offered_where_there_are_some(study):
    def offered(*overrides):
        names = set(variants(load_scenario(study("phantoms"), list(overrides))))
        return names & set(regions_table.WITH_WEIGHTS)

    assert offered() == set()
    assert offered("regions.checkpoint=w.pt") == {"sam", "hf-sam", "unet"}
    unet = ("regions.checkpoint=w.pt", "regions.method=unet")
    assert offered(*unet) == set()  # the own regions
    assert offered(*unet, "regions.count=2") == {"unet"}
