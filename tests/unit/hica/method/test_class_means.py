import math

import numpy as np
import pytest

from hica.method.class_means import as_bank, blended_start, nearest_mean, with_texts


def unit_rows(count, seed, dim=4):
    rows = np.random.default_rng(seed).normal(size=(count, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


# --- Where a trained bank starts -----------------------------------------------------------------


def slow_blended_start(texts, sums, counts):
    dim = texts.shape[1]
    means = {
        c: [sums[c][d] / counts[c] for d in range(dim)] for c in range(len(texts)) if counts[c]
    }
    middle = [sum(mean[d] for mean in means.values()) / len(means) for d in range(dim)]
    rows = []
    for c, text in enumerate(texts):
        row = [float(x) for x in text]
        if c in means:
            away = [x - m for x, m in zip(means[c], middle, strict=True)]
            length = math.sqrt(sum(x * x for x in away))
            row = [x + y / length for x, y in zip(row, away, strict=True)]
        length = math.sqrt(sum(x * x for x in row))
        rows.append([x / length for x in row])
    return np.array(rows)


@pytest.mark.parametrize("counts", [[3.0, 5.0, 2.0], [3.0, 0.0, 2.0]])
def test_blended_start_equals_a_slow_loop(counts):
    counts = np.array(counts)
    texts = unit_rows(3, 1)
    sums = np.random.default_rng(2).normal(size=(3, 4)) * (counts > 0)[:, None]
    start = blended_start(texts, sums, counts)
    assert start.dtype == np.float32
    np.testing.assert_allclose(start, slow_blended_start(texts, sums, counts), rtol=1e-6)


def test_without_a_second_class_to_compare_with_the_bank_starts_at_its_texts():
    texts = unit_rows(2, 1)
    counts = np.array([4.0, 0.0])
    start = blended_start(texts, counts[:, None] * np.ones((2, 4)), counts)
    np.testing.assert_allclose(start, texts, rtol=1e-6)


# --- A classifier of noisy class means -----------------------------------------------------------


def classes(rng, count=3, dim=8):
    rows = rng.normal(size=(count, dim))
    return rows * rng.integers(4, 9, count)[:, None], rng.integers(4, 9, count).astype(float)


def test_without_noise_the_nearest_mean_wins():
    rng = np.random.default_rng(0)
    sums, counts = classes(rng)
    images = rng.normal(size=(50, 8))
    rows, offsets = nearest_mean(sums, counts, deviation=0.0)
    distances = ((images[:, None] - sums / counts[:, None]) ** 2).sum(axis=-1)
    assert (distances.argmin(axis=1) == (images @ rows.T - offsets).argmax(axis=1)).all()


def test_the_norms_of_noisy_means_are_right_on_average():
    rng = np.random.default_rng(0)
    sums, counts = classes(rng, dim=400)
    exact = nearest_mean(sums, counts, 0.0).offsets
    noisy = [
        nearest_mean(sums + 30.0 * rng.normal(size=sums.shape), counts, 30.0).offsets
        for _ in range(2000)
    ]
    error = np.std(noisy, axis=0) / np.sqrt(2000)
    assert (np.abs(np.mean(noisy, axis=0) - exact) < 4 * error).all()


@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_bank_of_unit_rows_ranks_as_the_classifier_does(count):
    rng = np.random.default_rng(count)
    classifier = nearest_mean(*classes(rng, count), deviation=0.0)
    bank, bias = as_bank(classifier, temperature=0.1)
    assert np.linalg.norm(bank, axis=1) == pytest.approx(np.ones(count), abs=1e-12)
    images = rng.normal(size=(40, 8))
    scores, logits = images @ classifier.rows.T - classifier.offsets, images @ bank.T / 0.1 + bias
    differences, others = scores - scores[:, :1], logits - logits[:, :1]
    scale = (others[:, 1:] / differences[:, 1:]).mean()
    assert scale > 0
    assert others == pytest.approx(scale * differences, rel=1e-9, abs=1e-9)


def test_texts_and_means_weigh_alike_and_the_mean_image_scores_nothing():
    rng = np.random.default_rng(1)
    means = nearest_mean(rng.normal(size=(3, 8)), np.ones(3), 0.0)
    texts = np.eye(3, 8)
    rows, offsets = with_texts(means, texts)
    centre = means.rows.mean(axis=0)
    assert np.linalg.norm(rows - texts, axis=1).mean() == pytest.approx(1.0, abs=1e-12)
    without = with_texts(means, np.zeros((3, 8)))
    assert (rows - without.rows) @ centre - (offsets - without.offsets) == pytest.approx(
        np.zeros(3), abs=1e-12
    )
