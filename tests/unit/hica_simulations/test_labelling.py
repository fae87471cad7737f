from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from hica.images.manifest import read_manifest
from hica_simulations.labelling import at_random
from hica_simulations.partitions import build_sites
from hica_simulations.scenario import load_scenario

STUDY = Path(__file__).parents[3] / "simulations" / "studies" / "phantoms.toml"


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """The training labels of a site of phantoms, and all rows' names, under a labelling."""
    root = tmp_path_factory.mktemp("labelled")

    def labelled(labelling, seed=0):
        overrides = [f"simulation.labelling={labelling}", f"study.seed={seed}"]
        overrides += [
            "alignment.shots=6",
            "simulation.phantoms.per_class=6",
            "simulation.phantoms.size=32",
        ]
        scenario = load_scenario(STUDY, overrides)
        out = root / f"{labelling}-{seed}"
        folders = build_sites(scenario, root, out, root / "cache")
        rows = read_manifest(folders[0].manifest)
        train = {row.name: row.label for row in rows if row.split == "train" and row.label}
        return train, rows, folders[0]

    return labelled


@pytest.mark.parametrize("labelling", ["random", "suggested"])
def test_a_site_labels_as_many_images_as_shots_and_keeps_the_others_without(labelled, labelling):
    train, rows, folder = labelled(labelling)
    everything, all_rows, _ = labelled("all")
    assert len(train) == folder.labelled == 6 < len(everything)
    assert train.items() <= everything.items()
    assert [row.name for row in rows] == [row.name for row in all_rows]
    tests = [[(r.name, r.label) for r in each if r.split == "test"] for each in (rows, all_rows)]
    assert tests[0] == tests[1]
    assert labelled(labelling)[0] == train
    assert labelled(labelling, seed=1)[0] != train


def test_random_labels_take_a_second_image_of_no_patient_before_the_first_of_each(labelled):
    rows = labelled("all")[1]
    train = [replace(row, group=f"g{number % 4}") for number, row in enumerate(rows)]
    chosen = at_random(train, 6, seed=0)
    assert sorted(Counter(row.group for row in chosen).values()) == [1, 1, 2, 2]
