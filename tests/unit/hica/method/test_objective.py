"""Each term against a slow loop over images, regions and texts, forward and backward."""

import itertools
import math
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from hica.method.local_training import Batch, alignment_loss
from hica.method.objective import (
    batch_global_loss,
    batch_local_loss,
    cross_loss,
    global_loss,
    local_loss,
)

TEMPERATURE = 0.1
MARGIN = 0.2
SIZES = [
    # B, K, C, M
    (1, 1, 2, 1),
    (1, 4, 3, 5),
    (2, 3, 1, 3),
    (5, 1, 2, 4),
    (4, 3, 5, 1),
    (6, 4, 3, 7),
]
ASSIGNMENTS = ["all", "best", "matching"]


class Case(NamedTuple):
    images: Tensor
    regions: Tensor
    valid: Tensor
    classes: Tensor
    findings: Tensor
    labels: Tensor
    positives: Tensor


def make_case(B: int, K: int, C: int, M: int, seed: int = 0) -> Case:
    """Random unit rows in float64; of two or more images one has no region, one no positive."""
    generator = torch.Generator().manual_seed(seed)

    def unit(*shape: int) -> Tensor:
        rows = torch.randn(*shape, 6, generator=generator, dtype=torch.float64)
        return functional.normalize(rows, dim=-1)

    valid = torch.rand(B, K, generator=generator) < 0.7
    positives = torch.rand(B, M, generator=generator) < 0.6
    valid[0], positives[0] = True, True
    if B > 1:
        valid[1] = False
    if B > 2:
        positives[2] = False
    labels = torch.randint(C, (B,), generator=generator)
    return Case(unit(B), unit(B, K), valid, unit(C), unit(M), labels, positives)


def dot(a: Tensor, b: Tensor) -> float:
    return sum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True))


def slow_log_softmax(query: Tensor, keys: list[Tensor], index: int) -> float:
    total = sum(math.exp(dot(query, key) / TEMPERATURE) for key in keys)
    return dot(query, keys[index]) / TEMPERATURE - math.log(total)


def slow_assignment(case: Case, image: int, assignment: str) -> dict[int, list[int]]:
    """The positives of each valid region; `matching` tries every permutation."""
    valid = [k for k in range(case.valid.shape[1]) if case.valid[image, k]]
    positives = [m for m in range(len(case.findings)) if case.positives[image, m]]
    if not valid or not positives:
        return {}
    if assignment == "all":
        return dict.fromkeys(valid, positives)

    def cosine(k: int, m: int) -> float:
        return dot(case.regions[image, k], case.findings[m])

    chosen = {k: max(positives, key=lambda m, k=k: cosine(k, m)) for k in valid}
    if assignment == "matching":
        size = min(len(valid), len(positives))
        pairings = (
            list(zip(rows, columns, strict=True))
            for rows in itertools.combinations(valid, size)
            for columns in itertools.permutations(positives, size)
        )
        chosen.update(max(pairings, key=lambda pairs: sum(cosine(k, m) for k, m in pairs)))
    return {k: [m] for k, m in chosen.items()}


def slow_global(case: Case) -> list[float]:
    classes = list(case.classes)
    return [
        -slow_log_softmax(z, classes, int(y)) for z, y in zip(case.images, case.labels, strict=True)
    ]


def slow_local(case: Case, assignment: str) -> list[float]:
    findings = list(case.findings)
    losses = []
    for image in range(len(case.images)):
        regions = [
            sum(-slow_log_softmax(case.regions[image, k], findings, m) for m in own) / len(own)
            for k, own in slow_assignment(case, image, assignment).items()
        ]
        losses.append(sum(regions) / len(regions) if regions else 0.0)
    return losses


def slow_cross(case: Case) -> list[float]:
    losses = []
    for z, label in zip(case.images, case.labels, strict=True):
        y = int(label)
        hinges = [
            max(0.0, MARGIN - dot(z, case.classes[y]) + dot(z, case.classes[c]))
            for c in range(len(case.classes))
            if c != y
        ]
        losses.append(sum(hinges) / len(hinges) if hinges else 0.0)
    return losses


def slow_info_nce(queries: list[Tensor], texts: list[Tensor]) -> list[float]:
    return [
        -(slow_log_softmax(query, texts, i) + slow_log_softmax(text, queries, i)) / 2
        for i, (query, text) in enumerate(zip(queries, texts, strict=True))
    ]


def slow_batch_local(case: Case, assignment: str) -> list[float]:
    owners, queries, texts = [], [], []
    for image in range(len(case.images)):
        for k, own in slow_assignment(case, image, assignment).items():
            text = sum(case.findings[m] for m in own)
            owners.append(image)
            queries.append(case.regions[image, k])
            texts.append(text / math.sqrt(dot(text, text)))
    pairs = slow_info_nce(queries, texts)
    losses = []
    for image in range(len(case.images)):
        own = [loss for owner, loss in zip(owners, pairs, strict=True) if owner == image]
        losses.append(sum(own) / len(own) if own else 0.0)
    return losses


def fast_local(case: Case, assignment: str) -> Tensor:
    return local_loss(
        case.regions, case.valid, case.findings, case.positives, TEMPERATURE, assignment
    )


def fast_batch_local(case: Case, assignment: str) -> Tensor:
    return batch_local_loss(
        case.regions, case.valid, case.findings, case.positives, TEMPERATURE, assignment
    )


def terms(case: Case, assignment: str, contrast: str = "bank") -> tuple[Tensor, Tensor, Tensor]:
    cross = cross_loss(case.images, case.classes, case.labels, MARGIN)
    if contrast == "bank":
        near = global_loss(case.images, case.classes, case.labels, TEMPERATURE)
        return near, fast_local(case, assignment), cross
    near = batch_global_loss(case.images, case.classes[case.labels], TEMPERATURE)
    return near, fast_batch_local(case, assignment), cross


def whole(case: Case, assignment: str, contrast: str = "bank") -> Tensor:
    loss = alignment_loss(TEMPERATURE, 0.5, 0.25, MARGIN, assignment, contrast)
    model = SimpleNamespace(unit_bank=lambda: (case.classes, case.findings))
    return loss(model, Batch(case.images, case.regions, case.valid, case.labels, case.positives))


def assert_equal(fast: Tensor, slow: list[float]) -> None:
    torch.testing.assert_close(fast, torch.tensor(slow, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", SIZES)
def test_global_and_cross_equal_a_loop(size):
    case = make_case(*size)
    assert_equal(
        global_loss(case.images, case.classes, case.labels, TEMPERATURE), slow_global(case)
    )
    assert_equal(cross_loss(case.images, case.classes, case.labels, MARGIN), slow_cross(case))


@pytest.mark.parametrize("assignment", ASSIGNMENTS)
@pytest.mark.parametrize("size", SIZES)
def test_local_equals_a_loop(size, assignment):
    case = make_case(*size)
    assert_equal(fast_local(case, assignment), slow_local(case, assignment))


@pytest.mark.parametrize("size", SIZES)
def test_batch_global_equals_a_loop(size):
    case = make_case(*size)
    texts = case.classes[case.labels]
    assert_equal(
        batch_global_loss(case.images, texts, TEMPERATURE),
        slow_info_nce(list(case.images), list(texts)),
    )


@pytest.mark.parametrize("assignment", ASSIGNMENTS)
@pytest.mark.parametrize("size", SIZES)
def test_batch_local_equals_a_loop(size, assignment):
    case = make_case(*size)
    assert_equal(fast_batch_local(case, assignment), slow_batch_local(case, assignment))


@pytest.mark.parametrize("contrast", ["bank", "batch"])
def test_total_is_the_weighted_sum_of_the_chosen_terms(contrast):
    case = make_case(6, 4, 3, 7)
    near, local, cross = terms(case, "best", contrast)
    torch.testing.assert_close(whole(case, "best", contrast), near + 0.5 * local + 0.25 * cross)


@pytest.mark.parametrize("contrast", ["bank", "batch"])
@pytest.mark.parametrize("assignment", ASSIGNMENTS)
@pytest.mark.parametrize("size", SIZES)
def test_gradients_pass_gradcheck(size, assignment, contrast):
    case = make_case(*size)

    def total(images: Tensor, regions: Tensor, classes: Tensor, findings: Tensor) -> Tensor:
        moved = case._replace(images=images, regions=regions, classes=classes, findings=findings)
        return whole(moved, assignment, contrast)

    inputs = (case.images, case.regions, case.classes, case.findings)
    assert torch.autograd.gradcheck(total, [x.clone().requires_grad_() for x in inputs])


def test_matching_gives_different_regions_different_findings():
    findings = torch.eye(3, dtype=torch.float64)
    # Both regions are nearest to finding 0; the second can spare it more cheaply.
    regions = functional.normalize(
        torch.tensor([[[1.0, 0.0, 0.0], [0.8, 0.7, 0.0]]], dtype=torch.float64), dim=-1
    )
    valid = torch.ones(1, 2, dtype=torch.bool)
    positives = torch.tensor([[True, True, False]])
    log_probability = (regions[0] @ findings.T / TEMPERATURE).log_softmax(dim=-1)

    best = local_loss(regions, valid, findings, positives, TEMPERATURE, "best")
    matching = local_loss(regions, valid, findings, positives, TEMPERATURE, "matching")

    assert_equal(best, [-float(log_probability[0, 0] + log_probability[1, 0]) / 2])
    assert_equal(matching, [-float(log_probability[0, 0] + log_probability[1, 1]) / 2])


@pytest.mark.parametrize("local", [local_loss, batch_local_loss])
@pytest.mark.parametrize("assignment", ASSIGNMENTS)
@pytest.mark.parametrize("missing", ["regions", "positives", "findings"])
def test_nothing_to_compare_gives_zero_loss_and_zero_gradient(local, assignment, missing):
    case = make_case(3, 2, 2, 4)
    if missing == "regions":
        case = case._replace(valid=torch.zeros_like(case.valid))
    elif missing == "positives":
        case = case._replace(positives=torch.zeros_like(case.positives))
    else:
        case = case._replace(findings=case.findings[:0], positives=case.positives[:, :0])
    # An image without regions has zero vectors there, as mask pooling returns them.
    regions = torch.zeros_like(case.regions).requires_grad_()

    losses = local(
        functional.normalize(regions, dim=-1),
        case.valid,
        case.findings,
        case.positives,
        TEMPERATURE,
        assignment,
    )
    losses.sum().backward()

    assert losses.tolist() == [0.0, 0.0, 0.0]
    assert torch.equal(regions.grad, torch.zeros_like(regions))


def change_last_image(case: Case) -> Case:
    images, regions = case.images.clone(), case.regions.clone()
    images[-1], regions[-1] = -images[-1], -regions[-1]
    return case._replace(images=images, regions=regions)


@pytest.mark.parametrize("assignment", ASSIGNMENTS)
def test_bank_losses_of_an_image_do_not_depend_on_the_others(assignment):
    case = make_case(6, 4, 3, 7)
    before, after = (
        [*terms(each, assignment), whole(each, assignment)]
        for each in (case, change_last_image(case))
    )
    for term, changed in zip(before, after, strict=True):
        assert torch.equal(term[:-1], changed[:-1])
        assert not torch.equal(term[-1], changed[-1])


@pytest.mark.parametrize("assignment", ASSIGNMENTS)
def test_batch_losses_of_an_image_depend_on_the_others(assignment):
    case = make_case(6, 4, 3, 7)
    near, local, _ = terms(case, assignment, "batch")
    other_near, other_local, _ = terms(change_last_image(case), assignment, "batch")
    assert not torch.isclose(near[0], other_near[0])
    assert not torch.isclose(local[0], other_local[0])


def test_losses_are_per_image_under_vmap():
    """DP's oracle differentiates one image at a time; the terms must allow it."""
    case = make_case(6, 4, 3, 7)

    def single(image, regions, valid, label, positives):
        one = Case(
            image[None],
            regions[None],
            valid[None],
            case.classes,
            case.findings,
            label[None],
            positives[None],
        )
        return whole(one, "best")[0]

    losses = torch.func.vmap(single)(
        case.images, case.regions, case.valid, case.labels, case.positives
    )
    torch.testing.assert_close(losses, whole(case, "best"))


def test_image_at_its_own_text_pays_no_hinge_and_less_than_elsewhere():
    classes = torch.eye(3)
    labels = torch.tensor([0, 0])
    images = torch.stack([classes[0], classes[1]])
    assert cross_loss(images, classes, labels, MARGIN).tolist() == pytest.approx(
        [0.0, (1 + MARGIN + MARGIN) / 2]
    )
    own, other = global_loss(images, classes, labels, TEMPERATURE)
    assert own < other
