import pytest

from hica_simulations.experiments.tables import prevalence_table


@pytest.mark.parametrize("name", ["breast_lesions", "pneumonia_kinds", "phantoms"])
def test_every_method_is_run_without_and_with_the_prevalence(loaded, name):
    lines = loaded(prevalence_table, name)
    plain = [line for line in lines if not line.endswith(": prevalence known")]
    assert ("cnn" in plain) == (name != "phantoms")  # a tower drawn at random knows nothing
    for line in plain:
        known = lines[prevalence_table.known(line)]
        assert (lines[line].simulation.prevalence, known.simulation.prevalence) == (
            "unknown",
            "known",
        )
        assert known.study == lines[line].study


def test_what_knows_is_compared_with_ours_that_knows(row, save, predictions, tmp_path):
    known = prevalence_table.known
    lines = ("federated", "cnn", known("federated"), known("cnn"))
    rows = [row(name, seed, 0.5) for name in lines for seed in (1, 2)]
    for each in rows:
        save(tmp_path, each, predictions(5.0))
    text = prevalence_table.write(rows, tmp_path)
    assert f'"{known("federated")}" is what these are compared with' in text
    assert text.count("+0.0 [+0.0, +0.0]") == 6  # of three lines, accuracy and AUROC
