"""Stage 1, text side: the text tower learns the study's words.

L = InfoNCE(terms, definitions) + language model(corpus)

The language model alone collapses sentence embeddings: nothing in it keeps two sentences apart
(mean cosine 0.51 → 0.94 in our trial). The contrast of terms with their definitions does.
"""

import csv
import io
import json
import math
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from hica.below import below
from hica.errors import ConfigurationError
from hica.progress import track
from hica.text.bank import ClassTexts, embed, finding_names
from hica.towers.base import TextTower

TEMPERATURE = 0.07
BATCH_SIZE = 64
CORRUPTED = 0.15
"""Share of tokens a bidirectional tower has to restore (Devlin et al., 2019)."""


class Pair(NamedTuple):
    """A term and one of the texts that say what it means."""

    term: str
    definition: str


def study_pairs(texts: Sequence[ClassTexts]) -> list[Pair]:
    """Each class name with its prompts and findings, and each finding with itself.

    The latter keep findings of one class apart, which its name alone pulls into one point: on the
    breast study the closest two come to cosine 0.63 instead of 0.88.
    """
    described = [
        Pair(name, definition)
        for name, prompts, findings, _ in texts
        for definition in [*prompts, *findings]
        if definition.strip()
    ]
    return described + [Pair(finding, finding) for finding in finding_names(texts)]


def read_corpus(source: str, root: Path) -> list[str]:
    """Sentences of a corpus below the folder `root`, blank ones left out.

    It is a text file (a sentence a line), `file.csv:COLUMN`, or a JSON of prompts {term:
    [definitions]}.

    Raises:
        ConfigurationError: A file that is missing, empty or of another form, or an unknown column.
    """
    path, column = _located(source, root)
    if path.suffix == ".json":
        lines = [pair.definition for pair in read_pairs(source, root)]
    elif path.suffix == ".csv":
        lines = _csv_column(path, column)
    else:
        lines = _text(path).splitlines()
    sentences = [" ".join(line.split()) for line in lines if line.strip()]
    if not sentences:
        raise ConfigurationError(
            f"text.corpus: {source}: no sentence in it; fill it or remove the key"
        )
    return sentences


def read_pairs(source: str, root: Path) -> list[Pair]:
    """Terms and definitions of a JSON of prompts; none from a corpus of another kind.

    Raises:
        ConfigurationError: The JSON is missing or is not {term: [definitions]}.
    """
    path, _ = _located(source, root)
    if path.suffix != ".json":
        return []
    try:
        prompts = json.loads(_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ConfigurationError(f"text.corpus: {path}: not JSON: {error}") from None
    if not isinstance(prompts, dict) or not all(map(_is_list_of_text, prompts.values())):
        raise ConfigurationError(
            f"text.corpus: {path}: expected one object that maps each term to a list of sentences, "
            'for example {"cavity": ["a gas-filled space within consolidation"]}'
        )
    return [
        Pair(term, definition)
        for term, definitions in prompts.items()
        for definition in definitions
        if definition.strip()
    ]


def refine(
    tower: TextTower,
    pairs: Sequence[Pair],
    corpus: Sequence[str],
    epochs: int,
    learning_rate: float,
    seed: int,
) -> None:
    """Train `tower` in place on pairs and corpus; the same seed gives the same weights.

    An epoch goes through the longer of the two once and through the other as often as that takes.
    Dropout stays off, because it would draw from torch's global generator; the tower is left in
    evaluation mode. The language model reads the definitions of the pairs and the sentences of the
    corpus, and needs a tower with a token embedding. The learning rate is AdamW's; the seed is of
    the order of batches and of the tokens to restore.

    Raises:
        ConfigurationError: Nothing to train on, or a loss that is not finite.
    """
    definitions = list(dict.fromkeys(pair.definition for pair in pairs))
    sentences = list(dict.fromkeys([*definitions, *corpus]))
    if not pairs and (not sentences or tower.token_embedding is None):
        raise ConfigurationError(
            "text refinement has nothing to train on: give the classes prompts, or set text.corpus "
            "to a JSON of prompts"
        )
    related = set(pairs)
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(
        [weight for weight in tower.parameters() if weight.requires_grad], lr=learning_rate
    )
    steps = math.ceil(max(len(pairs), len(sentences)) / BATCH_SIZE)
    tower.eval()
    for _ in track(range(epochs), "refining the text tower"):
        pair_batches = _batches(len(pairs), steps, generator)
        sentence_batches = _batches(len(sentences), steps, generator)
        for pair_batch, sentence_batch in zip(pair_batches, sentence_batches, strict=True):
            losses = []
            if pairs:
                losses.append(pair_loss(tower, [pairs[i] for i in pair_batch], related))
            if tower.token_embedding is not None:
                read = [sentences[i] for i in sentence_batch]
                losses.append(language_loss(tower, read, generator))
            _step(optimiser, torch.stack(losses).sum())
    # Raises where the last step has broken the tower.
    embed(tower, definitions or sentences, "sentences of the text refinement")


def pair_loss(tower: TextTower, pairs: Sequence[Pair], related: Collection[Pair]) -> Tensor:
    """Symmetric InfoNCE between the distinct terms [T] and definitions [D] of a batch.

    A term has several definitions and a definition may serve several terms, so each is pulled to
    all its partners alike (Khosla et al., 2020, eq. 2) and never pushed from one of them. `related`
    are all pairs there are: what is no false negative of the batch.
    """
    terms = list(dict.fromkeys(pair.term for pair in pairs))
    definitions = list(dict.fromkeys(pair.definition for pair in pairs))
    partners = torch.tensor([[Pair(t, d) in related for d in definitions] for t in terms])  # [T, D]
    cosine = _unit(tower, terms) @ _unit(tower, definitions).T  # [T, D]
    partners, logits = partners.to(cosine.device), cosine / TEMPERATURE
    return (_info_nce(logits, partners) + _info_nce(logits.T, partners.T)) / 2


def language_loss(tower: TextTower, sentences: Sequence[str], generator: torch.Generator) -> Tensor:
    """Cross-entropy in nats a token: of the next token, or of restored ones.

    A causal tower predicts the next token. A bidirectional one would see it, and restores tokens
    that were replaced by others of the batch instead: the interface knows no mask token. The first
    and the last token of a sentence stay, since towers pool there.
    """
    embedding = tower.token_embedding
    if embedding is None:
        raise ValueError(f"{tower.name} has no token embedding")
    tokens = tower.tokenize(list(sentences)).to(embedding.device)  # [B, L]
    real = tokens != tower.pad_id
    if tower.causal:
        states, targets, scored = tower.token_states(tokens)[:, :-1], tokens[:, 1:], real[:, 1:]
    else:
        chosen = torch.rand(tokens.shape, generator=generator) < CORRUPTED
        scored = chosen.to(tokens.device) & F.pad(real[:, 2:], (1, 1), value=False)
        words = tokens[real]
        drawn = torch.randint(len(words), tokens.shape, generator=generator).to(tokens.device)
        states, targets = tower.token_states(torch.where(scored, words[drawn], tokens)), tokens
    logits = states[scored] @ embedding.T  # [scored tokens, vocabulary]
    total = F.cross_entropy(logits, targets[scored], reduction="sum")
    return total / scored.sum().clamp(min=1)


def _unit(tower: TextTower, texts: list[str]) -> Tensor:
    """Unit embeddings [len(texts), dim], with gradient."""
    device = next(tower.parameters()).device
    return F.normalize(tower(tower.tokenize(texts).to(device)), dim=-1)


def _info_nce(logits: Tensor, positive: Tensor) -> Tensor:
    """Mean over rows of −log softmax, averaged over the positives of the row."""
    shares = logits.log_softmax(dim=1)
    return -((shares * positive).sum(dim=1) / positive.sum(dim=1)).mean()


def _step(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step down a finite loss."""
    if not loss.isfinite():
        raise ConfigurationError(
            f"text refinement: the loss became {loss.item()}; lower text.learning_rate"
        )
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()


def _batches(count: int, steps: int, generator: torch.Generator) -> Iterator[list[int]]:
    """`steps` batches of indices below `count`, shuffled anew whenever all were seen."""
    size = min(BATCH_SIZE, count)
    order: list[int] = []
    for _ in range(steps):
        if len(order) < size:
            order += torch.randperm(count, generator=generator).tolist()
        yield order[:size]
        order = order[size:]


def _located(source: str, root: Path) -> tuple[Path, str]:
    """Path and column of `file.csv:COLUMN`; of any other file the path and no column."""
    stem, separator, column = source.rpartition(".csv:")
    name = f"{stem}.csv" if separator else source
    return below(root, name, "text.corpus", ConfigurationError), column if separator else ""


def _text(path: Path) -> str:
    """Content of a UTF-8 file."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigurationError(
            f"text.corpus: {path}: no such file; put it there or remove the key"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"text.corpus: {path}: not a readable UTF-8 file: {error}"
        ) from None


def _csv_column(path: Path, column: str) -> list[str]:
    """All cells of a column."""
    rows = csv.DictReader(io.StringIO(_text(path), newline=""))
    columns = rows.fieldnames or []
    if column not in columns:
        raise ConfigurationError(
            f"text.corpus: {path}: no column {column!r}; write {path.name}:COLUMN with one of "
            f"{', '.join(columns) or '(the file is empty)'}"
        )
    return [row[column] or "" for row in rows]


def _is_list_of_text(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
