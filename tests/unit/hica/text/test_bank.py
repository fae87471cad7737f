import hashlib
import json
import math
import random
import struct
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from hica.errors import ConfigurationError
from hica.text.bank import (
    TextBank,
    build_text_bank,
    embed,
    finding_names,
    orthonormal_map,
    widened_classes,
)
from hica.towers.base import TextTower


class TableTower(TextTower):
    """Embeds each text as the row it was given."""

    def __init__(self, rows: dict[str, list[float]]) -> None:
        super().__init__()
        self.name, self.pad_id, self.causal = "table", 0, True
        self.texts = list(rows)
        self.rows = nn.Parameter(torch.tensor(list(rows.values())))
        self.dim = self.rows.shape[1]

    token_embedding = None

    def tokenize(self, texts: list[str]) -> Tensor:
        return torch.tensor([[self.texts.index(text)] for text in texts])

    def token_states(self, tokens: Tensor) -> Tensor:
        return self.rows[tokens]

    def forward(self, tokens: Tensor) -> Tensor:
        return self.rows[tokens[:, 0]]


CLASSES = [
    ("benign", ["b1", "b2", " "], ["oval", "hypoechoic"], False),
    ("malignant", ["m1"], ["irregular", "hypoechoic", "spiculated"], False),
    ("normal", ["n1", "n2", "n3"], ["fat"], True),
]
TEXTS = ["b1", "b2", "m1", "n1", "n2", "n3", "oval", "hypoechoic", "irregular", "spiculated", "fat"]


def random_rows(dim: int = 5) -> dict[str, list[float]]:
    draw = random.Random(3)
    return {text: [2.0 + draw.gauss(0, 1) for _ in range(dim)] for text in TEXTS}


def unit(row: list[float]) -> list[float]:
    length = math.sqrt(sum(value * value for value in row))
    return [value / length for value in row]


def mean(rows: list[list[float]]) -> list[float]:
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def slow_bank(rows: dict[str, list[float]]) -> tuple[list[list[float]], list[list[float]]]:
    """Classes and findings as the docstring says, one number at a time."""
    classes = []
    for _, prompts, _, _ in CLASSES:
        classes.append(unit(mean([unit(rows[text]) for text in prompts if text.strip()])))
    findings = [unit(rows[text]) for text in TEXTS[6:]]
    centred = []
    for group in (classes, findings):
        middle = mean(group)
        centred.append([unit([a - b for a, b in zip(row, middle, strict=True)]) for row in group])
    return centred[0], centred[1]


def test_bank_equals_slow_loops() -> None:
    rows = random_rows()
    classes, findings = slow_bank(rows)
    bank = build_text_bank(TableTower(rows), CLASSES, 5, 0.95, seed=0)
    torch.testing.assert_close(bank.classes, torch.tensor(classes))
    torch.testing.assert_close(bank.findings, torch.tensor(findings))
    assert bank.class_names == ("benign", "malignant", "normal")
    assert bank.finding_names == ("oval", "hypoechoic", "irregular", "spiculated", "fat")
    assert bank.finding_classes.int().tolist() == [
        [1, 0, 0],
        [1, 1, 0],
        [0, 1, 0],
        [0, 1, 0],
        [0, 0, 1],
    ]
    assert bank.healthy.tolist() == [False, False, True]


@pytest.mark.parametrize("dim", [6, 12, 128])
def test_mapping_to_a_wider_space_keeps_every_cosine(dim: int) -> None:
    tower = TableTower(random_rows())
    narrow = build_text_bank(tower, CLASSES, 5, 0.95, seed=0)
    wide = build_text_bank(tower, CLASSES, dim, 0.95, seed=0)
    assert wide.classes.shape == (3, dim)
    torch.testing.assert_close(wide.classes @ wide.findings.T, narrow.classes @ narrow.findings.T)
    torch.testing.assert_close(wide.classes @ wide.classes.T, narrow.classes @ narrow.classes.T)


def test_mapping_to_a_narrower_space_gives_unit_rows() -> None:
    bank = build_text_bank(TableTower(random_rows()), CLASSES, 4, 0.99, seed=0)
    torch.testing.assert_close(bank.classes.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(bank.findings.norm(dim=1), torch.ones(5))


@pytest.mark.parametrize(("inputs", "outputs"), [(3, 7), (7, 3), (1, 4), (4, 4)])
def test_map_is_orthonormal_and_follows_its_seed(inputs: int, outputs: int) -> None:
    matrix = orthonormal_map(inputs, outputs, seed=5)
    assert matrix.shape == (inputs, outputs)
    gram = matrix @ matrix.T if inputs <= outputs else matrix.T @ matrix
    torch.testing.assert_close(gram, torch.eye(min(inputs, outputs), dtype=torch.float64))
    assert torch.equal(matrix, orthonormal_map(inputs, outputs, seed=5))
    if inputs != outputs:
        assert not torch.allclose(matrix, orthonormal_map(inputs, outputs, seed=6))


def test_equal_widths_are_not_turned() -> None:
    assert torch.equal(orthonormal_map(4, 4, seed=5), torch.eye(4, dtype=torch.float64))


def test_embedding_in_batches_leaves_mode_and_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hica.text.bank.BATCH_SIZE", 2)
    rows = random_rows()
    tower = TableTower(rows).train()
    expected = torch.tensor([unit(rows[text]) for text in TEXTS], dtype=torch.float64)
    torch.testing.assert_close(embed(tower, TEXTS, "texts"), expected, atol=1e-6, rtol=0)
    assert tower.training


def test_bank_without_or_with_one_finding() -> None:
    rows = {"a": [1.0, 0.0], "b": [0.0, 1.0], "f": [3.0, 4.0]}
    none = build_text_bank(
        TableTower(rows), [("A", ["a"], [], False), ("B", ["b"], [], False)], 2, 0.9, seed=0
    )
    assert none.findings.shape == (0, 2)
    assert none.finding_classes.shape == (0, 2)
    assert none.positives(torch.tensor([0, 1]), [(), ()]).shape == (2, 0)
    one = build_text_bank(
        TableTower(rows), [("A", ["a"], ["f"], False), ("B", ["b"], [], False)], 2, 0.9, seed=0
    )
    torch.testing.assert_close(one.findings, torch.tensor([[0.6, 0.8]]))


def test_close_class_texts_are_refused_by_name() -> None:
    rows = {"a": [1.0, 0.0, 0.0], "b": [0.9, 0.3, 0.0], "c": [-1.0, 0.0, 0.3]}
    classes = [(name.upper(), [name], [], False) for name in rows]
    with pytest.raises(
        ConfigurationError, match=r"'A' and 'B'.*after centring exceeds 0\.5.*prompts"
    ):
        build_text_bank(TableTower(rows), classes, 3, 0.5, seed=0)
    build_text_bank(TableTower(rows), classes, 3, 0.99, seed=0)


def test_two_nearly_identical_classes_are_refused_although_centring_makes_them_opposite() -> None:
    classes = [("A", ["a"], [], False), ("B", ["b"], [], False)]
    rows = {"a": [1.0, 0.0], "b": [1.0, 0.01]}
    with pytest.raises(ConfigurationError, match=r"'A' and 'B'.*before centring exceeds 0\.999"):
        build_text_bank(TableTower(rows), classes, 2, 0.95, seed=0)
    bank = build_text_bank(TableTower({**rows, "b": [1.0, 0.1]}), classes, 2, 0.95, seed=0)
    assert (bank.classes[0] @ bank.classes[1]).item() == pytest.approx(-1.0, abs=1e-5)


def test_findings_the_tower_cannot_tell_apart_are_refused() -> None:
    rows = {"a": [1.0, 0.0], "b": [0.0, 1.0], "f": [3.0, 4.0], "g": [6.0, 8.0]}
    classes = [("A", ["a"], ["f"], False), ("B", ["b"], ["g"], False)]
    with pytest.raises(ConfigurationError, match=r"finding text equals the mean.*text\.epochs"):
        build_text_bank(TableTower(rows), classes, 2, 0.95, seed=0)


@pytest.mark.parametrize(
    ("text", "what"), [("m1", "prompts of class 'malignant'"), ("fat", "findings")]
)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_broken_embedding_is_refused(text: str, what: str, value: float) -> None:
    rows = random_rows()
    rows[text][1] = value
    with pytest.raises(ConfigurationError, match=f"{what}: embedded to NaN.*model.checkpoint"):
        build_text_bank(TableTower(rows), CLASSES, 5, 0.95, seed=0)


def test_class_without_prompts_is_refused() -> None:
    classes = [("A", [" "], [], False), *CLASSES]
    with pytest.raises(ConfigurationError, match="class 'A' has no prompts: give"):
        build_text_bank(TableTower(random_rows()), classes, 5, 0.95, seed=0)


def small_bank() -> TextBank:
    texts = [("A", ["a"], ["f"], False), ("B", ["b"], [], True)]
    return TextBank.assemble(
        texts, torch.tensor([[1.0, 0.0], [0.0, -1.0]]), torch.tensor([[0.6, 0.8]])
    )


def test_a_further_class_stands_in_the_frame_of_the_studys_own() -> None:
    """The same mean is taken off, and the study's rows stay where its bank has them."""
    tower = TableTower(random_rows())
    study, new = CLASSES[:2], [("cyst", ["n1", "n2"], [], False)]
    bank = build_text_bank(tower, study, 7, 0.999, 4)
    found = widened_classes(tower, study, new, 7, 0.999, 4)
    assert torch.allclose(found[:2], bank.classes, atol=1e-6)
    raw = {text: torch.tensor(row, dtype=torch.float64) for text, row in random_rows().items()}
    unit = {text: row / row.norm() for text, row in raw.items()}
    own = [sum(unit[p] for p in prompts if p.strip()) for _, prompts, _, _ in study]
    mean = sum(row / row.norm() for row in own) / 2
    cyst = unit["n1"] + unit["n2"]
    expected = (cyst / cyst.norm() - mean) @ orthonormal_map(5, 7, 4)
    assert torch.allclose(found[2], (expected / expected.norm()).float(), atol=1e-5)


def test_a_further_class_too_close_to_one_of_the_studys_is_refused() -> None:
    rows = random_rows() | {"n1": random_rows()["m1"]}
    new = [("cyst", ["n1"], [], False)]
    with pytest.raises(ConfigurationError, match="classes 'malignant' and 'cyst'"):
        widened_classes(TableTower(rows), CLASSES[:2], new, 7, 0.95, 4)


def test_hash_is_that_of_names_and_little_endian_floats() -> None:
    header = json.dumps([["A", "B"], ["f"], [[True, False]], [False, True]]).encode()
    floats = struct.pack("<4f", 1.0, 0.0, 0.0, -1.0) + struct.pack("<2f", 0.6, 0.8)
    assert small_bank().sha256 == hashlib.sha256(header + floats).hexdigest()


@pytest.mark.parametrize(
    "change",
    [
        {"class_names": ("A", "C")},
        {"finding_names": ("g",)},
        {"healthy": torch.tensor([False, False])},
        {"finding_classes": torch.tensor([[True, True]])},
        {"findings": torch.tensor([[0.6, math.nextafter(0.8, 1.0) + 1e-7]])},
        {"classes": torch.tensor([[0.0, -1.0], [1.0, 0.0]])},
    ],
)
def test_hash_changes_with_everything_in_the_bank(change: dict[str, object]) -> None:
    bank = small_bank()
    assert replace(bank, **change).sha256 != bank.sha256


def test_same_texts_and_seed_give_the_same_hash_and_another_seed_another() -> None:
    tower = TableTower(random_rows())
    first, again, other = (
        build_text_bank(tower, CLASSES, 8, 0.95, seed=seed).sha256 for seed in (0, 0, 1)
    )
    assert first == again != other


def test_moving_a_bank_moves_all_of_it() -> None:
    moved = small_bank().to("meta")
    tensors = (moved.classes, moved.findings, moved.finding_classes, moved.healthy)
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert small_bank().to("cpu").sha256 == small_bank().sha256


def random_bank() -> TextBank:
    texts = [(name, prompts, findings, healthy) for name, prompts, findings, healthy in CLASSES]
    return TextBank.assemble(texts, torch.eye(3, 5), torch.eye(5))


def slow_positives(label: int, named: tuple[str, ...]) -> list[bool]:
    names = finding_names(CLASSES)
    if label < 0:
        return [False] * len(names)
    everywhere = {name for _, _, listed, healthy in CLASSES if healthy for name in listed}
    listed = set(CLASSES[label][2])
    own = {name for name in named if name in listed and name not in everywhere}
    return [name in everywhere or name in (own or listed) for name in names]


def test_positives_equal_slow_loops() -> None:
    draw = random.Random(0)
    pool = [*finding_names(CLASSES), "halo", "not in the study"]
    labels = [draw.randrange(-1, 3) for _ in range(200)]
    named = [tuple(draw.sample(pool, draw.randrange(4))) for _ in labels]
    expected = torch.tensor([slow_positives(*pair) for pair in zip(labels, named, strict=True)])
    assert torch.equal(random_bank().positives(torch.tensor(labels), named), expected)


@pytest.mark.parametrize(
    ("label", "named", "expected"),
    [
        (0, (), {"oval", "hypoechoic", "fat"}),
        (0, ("oval",), {"oval", "fat"}),
        (1, ("hypoechoic", "halo"), {"hypoechoic", "fat"}),
        (1, ("oval",), {"irregular", "hypoechoic", "spiculated", "fat"}),
        (1, ("fat",), {"irregular", "hypoechoic", "spiculated", "fat"}),
        (2, (), {"fat"}),
        (2, ("spiculated",), {"fat"}),
        (-1, ("oval",), set()),
    ],
)
def test_positives_are_narrowed_to_the_images_own(
    label: int, named: tuple[str, ...], expected: set[str]
) -> None:
    bank = random_bank()
    row = bank.positives(torch.tensor([label]), [named])[0].tolist()
    assert {name for name, yes in zip(bank.finding_names, row, strict=True) if yes} == expected


def test_a_finding_of_every_class_is_narrowed_where_no_class_is_healthy() -> None:
    texts = [("A", [], ["x", "both"], False), ("B", [], ["y", "both"], False)]
    bank = TextBank.assemble(texts, torch.eye(2), torch.eye(3, 2))
    assert bank.positives(torch.tensor([0]), [("x",)]).tolist() == [[True, False, False]]
