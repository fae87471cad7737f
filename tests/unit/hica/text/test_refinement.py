import json
import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from hica.errors import ConfigurationError
from hica.study import Study, read_toml, validated
from hica.text.bank import build_text_bank, embed
from hica.text.refinement import (
    BATCH_SIZE,
    CORRUPTED,
    TEMPERATURE,
    Pair,
    _batches,
    language_loss,
    pair_loss,
    read_corpus,
    read_pairs,
    refine,
    study_pairs,
)
from hica.towers import TextTower, load_text_tower

ROOT = Path(__file__).parents[4]
DATA = ROOT.parent / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is absent")

PAIRS = [
    Pair(term, f"a {word} {noun} with {word} echoes")
    for term, word in (("benign", "smooth"), ("malignant", "spiky"), ("normal", "layered"))
    for noun in ("mass", "margin", "shadow", "tissue", "border", "rim")
]
DEFINITIONS = [pair.definition for pair in PAIRS]


class WordTower(TextTower):
    """A token per letter, its state its embedding; remembers the tokens it was last shown."""

    def __init__(self, causal: bool, with_embedding: bool = True) -> None:
        super().__init__()
        self.name, self.dim, self.pad_id, self.causal = "letters", 4, 0, causal
        values = torch.randn(27, 4, generator=torch.Generator().manual_seed(0))
        self.weights = nn.Parameter(values)
        self.with_embedding = with_embedding

    @property
    def token_embedding(self) -> Tensor | None:
        return self.weights if self.with_embedding else None

    def tokenize(self, texts: list[str]) -> Tensor:
        rows = [torch.tensor([ord(letter) - ord("a") + 1 for letter in text]) for text in texts]
        return nn.utils.rnn.pad_sequence(rows, batch_first=True)

    def token_states(self, tokens: Tensor) -> Tensor:
        self.shown = tokens
        return self.weights[tokens]

    def forward(self, tokens: Tensor) -> Tensor:
        return (self.weights[tokens] * (tokens > 0).unsqueeze(-1)).sum(dim=1)


def tiny(seed: int = 0) -> TextTower:
    return load_text_tower("tiny", vocabulary=[text for pair in PAIRS for text in pair], seed=seed)


def mean_cosine(tower: TextTower) -> float:
    rows = embed(tower, DEFINITIONS, "definitions")
    return float((rows @ rows.T)[~torch.eye(len(rows), dtype=torch.bool)].mean())


def cross_entropy(scores: list[float], target: int) -> float:
    return math.log(sum(math.exp(score) for score in scores)) - scores[target]


def test_pair_loss_equals_slow_loops() -> None:
    tower = WordTower(causal=True)
    batch = [Pair("ab", "x"), Pair("ab", "yz"), Pair("cd", "yz"), Pair("e", "w"), Pair("e", "w")]
    related = {*batch, Pair("cd", "x")}
    terms, definitions = ["ab", "cd", "e"], ["x", "yz", "w"]
    cosine = (embed(tower, terms, "") @ embed(tower, definitions, "").T / TEMPERATURE).tolist()
    sides = []
    for rows, columns, score in (
        (terms, definitions, lambda i, j: cosine[i][j]),
        (definitions, terms, lambda i, j: cosine[j][i]),
    ):
        total = 0.0
        for i, row in enumerate(rows):
            scores = [score(i, j) for j in range(len(columns))]
            positive = [
                j
                for j, column in enumerate(columns)
                if (row, column) in related or (column, row) in related
            ]
            total += sum(cross_entropy(scores, j) for j in positive) / len(positive)
        sides.append(total / len(rows))
    assert pair_loss(tower, batch, related).item() == pytest.approx(sum(sides) / 2, rel=1e-4)


def test_next_token_loss_equals_slow_loops_and_skips_padding() -> None:
    tower, sentences = WordTower(causal=True), ["abcde", "fg", "h"]
    weights = tower.weights.double().tolist()
    losses = []
    for sentence in sentences:
        tokens = [ord(letter) - ord("a") + 1 for letter in sentence]
        for now, following in pairwise(tokens):
            scores = [sum(a * b for a, b in zip(weights[now], row, strict=True)) for row in weights]
            losses.append(cross_entropy(scores, following))
    loss = language_loss(tower, sentences, torch.Generator())
    assert loss.item() == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_bidirectional_tower_restores_inner_tokens_only() -> None:
    tower = WordTower(causal=False)
    sentences = ["abcdefghij" * 4, "klmnopqrst" * 2, "uv"]
    tokens = tower.tokenize(sentences)
    replaced, losses = torch.zeros(tokens.shape), []
    for seed in range(200):
        loss = language_loss(tower, sentences, torch.Generator().manual_seed(seed))
        losses.append(loss.item())
        replaced += tower.shown != tokens
        assert set(tower.shown.flatten().tolist()) <= set(tokens.flatten().tolist())
    assert torch.equal(tower.shown[tokens == 0], tokens[tokens == 0])
    ends = (replaced[:, 0], replaced[0, 39], replaced[1, 19:], replaced[2])
    assert all((end == 0).all() for end in ends)
    inner = torch.cat([replaced[0, 1:39], replaced[1, 1:19]]) / 200
    # A letter is drawn as its own stand-in once in about 20 times.
    assert inner.mean().item() == pytest.approx(CORRUPTED, abs=0.02)
    assert all(math.isfinite(loss) for loss in losses)


def test_nothing_to_restore_costs_nothing() -> None:
    assert language_loss(WordTower(causal=False), ["ab"], torch.Generator()).item() == 0.0


@pytest.mark.parametrize("count", [1, 3, BATCH_SIZE, BATCH_SIZE + 7, 5 * BATCH_SIZE])
def test_batches_show_everything_equally_often(count: int) -> None:
    steps = 12
    batches = list(_batches(count, steps, torch.Generator().manual_seed(0)))
    assert [len(batch) for batch in batches] == [min(count, BATCH_SIZE)] * steps
    shown = [index for batch in batches for index in batch]
    frequency = [shown.count(index) for index in range(count)]
    assert max(frequency) - min(frequency) <= 1


def test_pairs_keep_apart_what_the_language_model_alone_lets_collapse() -> None:
    with_pairs, alone = tiny(), tiny()
    refine(with_pairs, PAIRS, [], epochs=12, learning_rate=3e-3, seed=0)
    refine(alone, [], DEFINITIONS, epochs=12, learning_rate=3e-3, seed=0)
    assert mean_cosine(with_pairs) < 0.5 < 0.7 < mean_cosine(alone)
    assert pair_loss(with_pairs, PAIRS, PAIRS).item() < 1.2  # log 6 = 1.79 by chance
    reading = language_loss(with_pairs, DEFINITIONS, torch.Generator())
    assert reading.item() < 2.0  # log 16 = 2.77 by chance


def test_same_seed_same_weights_whatever_the_global_generator() -> None:
    def weights(seed: int, global_seed: int) -> dict[str, Tensor]:
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        tower = tiny()
        refine(tower, PAIRS, [f"sentence {n}" for n in range(60)], 2, 1e-3, seed)
        assert torch.equal(torch.get_rng_state(), before)
        return tower.state_dict()

    first, again, other = weights(0, 1), weights(0, 2), weights(1, 1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_tower_without_token_embedding_learns_from_pairs_alone() -> None:
    tower = WordTower(causal=True, with_embedding=False)
    pairs = [Pair("ab", "cd"), Pair("ef", "gh")]
    before = pair_loss(tower, pairs, pairs).item()
    refine(tower, pairs, ["ij"], epochs=3, learning_rate=0.1, seed=0)
    assert pair_loss(tower, pairs, pairs).item() < before
    with pytest.raises(ConfigurationError, match=r"nothing to train on.*text\.corpus"):
        refine(tower, [], ["ij"], epochs=1, learning_rate=0.1, seed=0)


def test_nothing_to_train_on_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="nothing to train on"):
        refine(tiny(), [], [], epochs=1, learning_rate=1e-3, seed=0)


def test_loss_that_is_not_finite_is_refused() -> None:
    tower = WordTower(causal=True)
    nn.init.constant_(tower.weights, math.nan)
    with pytest.raises(ConfigurationError, match=r"loss became nan; lower text\.learning_rate"):
        refine(tower, [Pair("ab", "cd")], [], epochs=1, learning_rate=1e-3, seed=0)


def test_study_pairs_name_prompts_findings_and_findings_themselves() -> None:
    texts = [("A", ["one", " "], ["f"], False), ("B", ["two"], ["f", "g"], True)]
    assert study_pairs(texts) == [
        ("A", "one"),
        ("A", "f"),
        ("B", "two"),
        ("B", "f"),
        ("B", "g"),
        ("f", "f"),
        ("g", "g"),
    ]


def test_corpus_from_text_csv_and_json(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("\ufeffone  line\n\n another\t line \n", encoding="utf-8")
    (tmp_path / "reports.csv").write_text('id,text\n1,"two\nlines"\n2,\n3,last\n')
    (tmp_path / "prompts.json").write_text(json.dumps({"a": ["x y", " "], "b": ["z"]}))
    assert read_corpus("notes.txt", tmp_path) == ["one line", "another line"]
    assert read_corpus("reports.csv:text", tmp_path) == ["two lines", "last"]
    assert read_corpus("prompts.json", tmp_path) == ["x y", "z"]
    assert read_pairs("prompts.json", tmp_path) == [("a", "x y"), ("b", "z")]
    assert read_pairs("notes.txt", tmp_path) == []


@pytest.mark.parametrize(
    ("source", "content", "message"),
    [
        ("gone.txt", None, "gone.txt: no such file; put it there"),
        ("gone.json", None, "gone.json: no such file; put it there"),
        ("gone.csv:text", None, "gone.csv: no such file; put it there"),
        ("empty.txt", " \n", "empty.txt: no sentence in it; fill it"),
        ("blank.csv:text", "text,id\n,1\n", "blank.csv:text: no sentence in it"),
        ("none.json", "{}", "none.json: no sentence in it"),
        ("latin.txt", b"caf\xe9", "latin.txt: not a readable UTF-8 file"),
        (
            "some.csv:txt",
            "text,id\na,1\n",
            "no column 'txt'; write some.csv:COLUMN with one of text, id",
        ),
        ("some.csv", "text,id\na,1\n", "no column ''; write some.csv:COLUMN with one of text, id"),
        ("void.csv:text", "", "no column 'text'.*the file is empty"),
        ("broken.json", "{", "broken.json: not JSON"),
        ("list.json", '["a"]', "maps each term to a list of sentences"),
        ("flat.json", '{"a": "b"}', "maps each term to a list of sentences"),
        ("numbers.json", '{"a": [1]}', "maps each term to a list of sentences"),
    ],
)
def test_unusable_corpus_is_refused_with_the_remedy(
    tmp_path: Path, source: str, content: str | bytes | None, message: str
) -> None:
    if content is not None:
        raw = content if isinstance(content, bytes) else content.encode()
        (tmp_path / source.partition(":")[0]).write_bytes(raw)
    with pytest.raises(ConfigurationError, match=message):
        read_corpus(source, tmp_path)


@pytest.mark.parametrize("name", ["breast_ultrasound", "chest_xray"])
def test_shipped_study_gives_a_bank_whose_findings_lie_at_their_class(name: str) -> None:
    table = read_toml(ROOT / "simulations" / "studies" / f"{name}.toml")
    table.pop("simulation")
    study = validated(Study, table, name)
    texts = study.class_texts
    pairs = study_pairs(texts)
    tower = load_text_tower("tiny", vocabulary=[text for pair in pairs for text in pair], seed=0)
    refine(tower, pairs, [], study.text.epochs, study.text.learning_rate, seed=0)
    bank = build_text_bank(tower, texts, 128, study.text.max_similarity, seed=0)
    nearest = (bank.findings @ bank.classes.T).argmax(dim=1)
    right = bank.finding_classes[range(len(nearest)), nearest]
    assert right.float().mean() > 0.9
    assert (bank.findings @ bank.findings.T).fill_diagonal_(-1).max() < 0.9


@pytest.mark.real_data
@needs_data
def test_real_corpora() -> None:
    assert len(read_corpus("text/indiana_reports.csv:findings", DATA)) > 3000
    pairs = read_pairs("text/biomedcoop_class_prompts.json", DATA)
    assert len({pair.term for pair in pairs}) == 72
