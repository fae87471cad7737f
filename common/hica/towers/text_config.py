"""text_config: what a pair's text side of transformers is built by, without asking a hub.

The folder's own `config.json`, or where it has none, as BiomedCLIP's, what is known of the model
that is named: its kind and its constants. Its sizes are read from the weights.
"""

import json
import re
from pathlib import Path
from typing import Any

from torch import Tensor

from hica.errors import WeightsError
from hica.printable import plain
from hica.towers.reading import names, read_weights

FILE = "config.json"
BERT: dict[str, Any] = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}
ROBERTA: dict[str, Any] = {
    "model_type": "roberta",
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
KNOWN = {
    r"(google-bert/)?bert-(base|large)-(un)?cased": BERT,
    r"microsoft/BiomedNLP-(BiomedBERT|PubMedBERT)-(base|large)-uncased-abstract(-fulltext)?": BERT,
    r"emilyalsentzer/Bio_(Clinical|Discharge_Summary_)?BERT": BERT,
    r"dmis-lab/biobert-(base|large)-cased-v1\.[12]": BERT,
    r"allenai/scibert_scivocab_(un)?cased": BERT,
    r"(FacebookAI/)?roberta-(base|large)": ROBERTA,
    r"(FacebookAI/)?xlm-roberta-(base|large)": {**ROBERTA, "model_type": "xlm-roberta"},
}
"""Text models by name; all have heads of 64 channels."""
HEAD = 64
SIZES = {
    "vocab_size": ("embeddings.word_embeddings.weight", 0),
    "hidden_size": ("embeddings.word_embeddings.weight", 1),
    "max_position_embeddings": ("embeddings.position_embeddings.weight", 0),
    "type_vocab_size": ("embeddings.token_type_embeddings.weight", 0),
    "intermediate_size": ("encoder.layer.0.intermediate.dense.weight", 0),
}
LAYER = re.compile(r"encoder\.layer\.(\d+)\.")


def check_text_side(folder: Path, name: str | None) -> None:
    """Check that a text model's configuration is in the folder, or known by its name.

    `name` is what `hf_model_name` says; None: the text side is open_clip's own.

    Raises:
        WeightsError: It is neither; says which file to add.
    """
    if name is None or _known(name) is not None:
        return
    if not (folder / FILE).is_file():
        raise WeightsError(
            f"{folder / FILE}: no such file, and nothing is known of the text model "
            f"{plain(name)!r}, which is not fetched; put its config.json there, for example where "
            "there is a network by: hf download OWNER/NAME config.json --local-dir FOLDER"
        )


def write_text_config(to: Path, folder: Path, name: str, weights: Path) -> Path:
    """The folder with a text model's `config.json`: `folder`, or `to`, where one is written.

    Raises:
        WeightsError: `folder` has none, and the weights have no text side that is known.
    """
    if (folder / FILE).is_file():
        return folder
    sizes = _sizes(read_weights(weights), folder, weights)
    (to / FILE).write_text(json.dumps({**(_known(name) or {}), **sizes}))
    return to


def _known(name: str) -> dict[str, Any] | None:
    return next((found for form, found in KNOWN.items() if re.fullmatch(form, name)), None)


def _sizes(state: dict[str, Tensor], folder: Path, weights: Path) -> dict[str, int]:
    """The sizes of a text side, from the shapes of its weights."""
    found = {name: value.shape for name, value in state.items() if value.ndim == 2}
    sizes = {}
    for key, (end, axis) in SIZES.items():
        shapes = [shape for name, shape in found.items() if name.endswith(end)]
        if not shapes:
            raise WeightsError(
                f"{weights}: has no text side ({names(sorted(found))}), and {folder} has no "
                f"{FILE}; fetch the whole folder of the model"
            )
        sizes[key] = int(shapes[0][axis])
    layers = {int(layer[1]) for name in found if (layer := LAYER.search(name))}
    if sizes["hidden_size"] % HEAD:
        raise WeightsError(
            f"{folder / FILE}: no such file, and a text side {sizes['hidden_size']} wide is none "
            f"that is known by its name; put the text model's config.json there"
        )
    return {
        **sizes,
        "num_hidden_layers": len(layers),
        "num_attention_heads": sizes["hidden_size"] // HEAD,
    }
