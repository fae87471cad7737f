from hica_simulations.experiments.tables.plots import _values


def test_values_are_paired_by_their_seeds(row):
    rows = [row("ours", 2, 0.7), row("ours", 1, 0.6), row("ours", 3, None)]
    rows += [row("theirs", 1, None), row("theirs", 2, 0.2), row("theirs", 3, 0.3)]
    rows += [row("ours", 2, 0.9, study="t")]
    assert _values(rows, "s", "ours", "theirs", "auroc") == ([0.7], [0.2])
