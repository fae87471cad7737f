import pytest

from hica_simulations.experiments.benchmarks.dp_sgd import compare_dp_sgd


@pytest.mark.parametrize("way", ["adapter", "lora"])
def test_dp_sgd_gives_the_named_figures(way):
    figures = compare_dp_sgd(repeat=1, image="tiny", way=way, batch_size=2, steps=2)
    assert [(figure.name, figure.unit, figure.target) for figure in figures] == [
        (f"tiny, {way}: step, plain", "ms", ""),
        (f"tiny, {way}: step, DP-SGD", "ms", ""),
        (f"tiny, {way}: secure noise of a step", "ms", ""),
        (f"tiny, {way}: DP-SGD / plain", "×", ""),
    ]
    plain, private, _, over = (figure.value for figure in figures)
    assert over == pytest.approx(private / plain)
