"""onnx_form: `onnx/`, the whole model as one graph that ONNX Runtime runs.

The text matrix, temperature and intercepts are in the graph, and so is the mirror image where HiCA
averages it. A reader prepares the image (`preprocess.py`) and reads logits.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hica.export.classifier import Exported, NotPossibleError, sample
from hica.export.copied import EMBEDDING, INPUT, LOGITS, write_code, write_preprocessing

GRAPH = "model.onnx"
LARGEST = 1_800_000_000
"""Bytes of weights above which they lie in a file beside the graph: protobuf's limit is 2 GB."""


def write(folder: Path, exported: Exported) -> None:
    """Write the graph, how images are prepared, and code for that."""
    write_graph(folder / GRAPH, exported)
    write_preprocessing(folder, exported)
    write_code(folder, "preprocess")


def write_graph(path: Path, exported: Exported) -> None:
    """Write `image` float32 [batch, 3, S, S] in 0..1 to `logits` and `image_embedding`.

    Raises:
        NotPossibleError: torch cannot make a graph of this tower.
    """
    import onnx

    classifier = exported.classifier
    try:
        with _quiet():
            program: Any = torch.onnx.export(
                classifier,
                (sample(classifier, 2),),
                input_names=[INPUT],
                output_names=[LOGITS, EMBEDDING],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                dynamo=True,
            )
    except Exception as error:  # the exporter raises many kinds, of which some are private
        why = str(error).strip().partition("\n")[0]
        raise NotPossibleError(f"torch cannot make a graph of this tower ({why})") from None
    graph = program.model_proto
    _without_traces(graph)
    large = sum(each.nbytes for each in classifier.state_dict().values()) > LARGEST
    onnx.save_model(
        graph, path, save_as_external_data=large, location=f"{path.name}.data" if large else None
    )
    onnx.checker.check_model(path)


def logits(folder: Path, _: Exported, colours: Tensor) -> Tensor:
    """Logits [B, C] of images as the graph has them, in one view or two, by ONNX Runtime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / GRAPH, providers=["CPUExecutionProvider"])
    (found,) = session.run([LOGITS], {INPUT: colours.numpy()})
    return torch.from_numpy(found)


def _without_traces(graph: Any) -> None:
    """Take off where in the source a node comes from: paths of this machine."""
    graph.doc_string = graph.graph.doc_string = ""
    del graph.metadata_props[:], graph.graph.metadata_props[:]
    for each in (*graph.graph.node, *graph.graph.value_info, *graph.functions):
        each.doc_string = ""
        del each.metadata_props[:]
    for function in graph.functions:
        for node in function.node:
            node.doc_string = ""
            del node.metadata_props[:]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter prints of its own progress."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
            yield
    finally:
        logger.setLevel(level)
