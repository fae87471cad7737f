"""monai_form: `monai_bundle/`, a bundle that `python -m monai.bundle run` runs.

MONAI's own checkpoints are pickled. Here the network is the ONNX graph, behind 20 lines of torch
(`scripts/network.py`); so the folder has no `model.pt`, and nothing of it is unpickled.
"""

import importlib.metadata
import json
import shutil
from pathlib import Path
from typing import Any

from hica.export import onnx_form
from hica.export.classifier import Exported
from hica.export.copied import INPUT, write_code, write_preprocessing

SCHEMA = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/"
    "meta_schema_20240725.json"
)
"""MONAI's schema of `metadata.json`."""
PACKAGES = {"onnxruntime": "onnxruntime", "pillow": "pillow", "pytorch-ignite": "pytorch-ignite"}


def write(folder: Path, exported: Exported, graph: Path) -> None:
    """Write metadata, inference config, the graph of `onnx/` and code."""
    configs, models, scripts = (folder / name for name in ("configs", "models", "scripts"))
    for each in (configs, models, scripts):
        each.mkdir(parents=True)
    for part in graph.parent.glob(f"{graph.name}*"):
        shutil.copyfile(part, models / part.name)
    write_code(scripts, "preprocess", "network", "picture")
    (scripts / "__init__.py").write_text('"""Code of this bundle."""\n')
    write_preprocessing(models, exported)
    for name, table in (("metadata", metadata(exported)), ("inference", inference())):
        text = json.dumps(table, indent=2, ensure_ascii=False)
        (configs / f"{name}.json").write_text(f"{text}\n", encoding="utf-8")


def metadata(exported: Exported) -> dict[str, Any]:
    """`metadata.json` after MONAI's bundle specification."""
    side = exported.classifier.preprocess.size
    study = exported.study.study
    versions = {name: importlib.metadata.version(each) for name, each in PACKAGES.items()}
    return {
        "schema": SCHEMA,
        "version": "1.0.0",
        "changelog": {"1.0.0": f"exported from the study {exported.study.sha256}"},
        "monai_version": importlib.metadata.version("monai"),
        "pytorch_version": importlib.metadata.version("torch").partition("+")[0],
        "numpy_version": importlib.metadata.version("numpy"),
        "required_packages_version": versions,
        "name": study.name,
        "task": f"Classify an image: {', '.join(exported.classes)}",
        "description": (
            f"Image classifier learnt by HiCA in the federated study {study.name!r}. See "
            "model_card.md, one folder up, for data, metrics, privacy and limits."
        ),
        "authors": exported.facts.get("exported_by", "HiCA"),
        "copyright": "of whoever ran the study; see model_card.md",
        "intended_use": "research only; not for diagnosis",
        "network_data_format": {
            "inputs": {
                INPUT: {
                    "type": "image",
                    "format": "magnitude",
                    "modality": study.modality or "n/a",
                    "num_channels": 3,
                    "spatial_shape": [side, side],
                    "dtype": "float32",
                    "value_range": [0, 1],
                    "is_patch_data": False,
                    "channel_def": {"0": "red", "1": "green", "2": "blue"},
                }
            },
            "outputs": {
                "pred": {
                    "type": "probabilities",
                    "format": "classes",
                    "modality": "n/a",
                    "num_channels": len(exported.classes),
                    "spatial_shape": [1],
                    "dtype": "float32",
                    "value_range": [],
                    "is_patch_data": False,
                    "channel_def": {str(i): name for i, name in enumerate(exported.classes)},
                }
            },
        },
    }


def inference() -> dict[str, Any]:
    """`inference.json`: every picture of a folder to a row of probabilities."""
    return {
        "imports": ["$import glob", "$import os"],
        "bundle_root": ".",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "dataset_dir": "images",
        "output_dir": "$@bundle_root + '/eval'",
        "endings": ["png", "jpg", "jpeg", "bmp", "tif", "tiff"],
        "datalist": (
            "$sorted(path for ending in @endings "
            "for path in glob.glob(os.path.join(@dataset_dir, '*.' + ending)))"
        ),
        "network_def": {
            "_target_": "scripts.network.OnnxNetwork",
            "path": f"$@bundle_root + '/models/{onnx_form.GRAPH}'",
        },
        "network": "$@network_def.to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {
                    "_target_": "scripts.picture.LoadPictured",
                    "folder": "$@bundle_root + '/models'",
                }
            ],
        },
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': path} for path in @datalist]",
            "transform": "@preprocessing",
        },
        "dataloader": {
            "_target_": "DataLoader",
            "dataset": "@dataset",
            "batch_size": 8,
            "shuffle": False,
            "num_workers": 0,
        },
        "inferer": {"_target_": "SimpleInferer"},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [{"_target_": "Activationsd", "keys": "pred", "softmax": True}],
        },
        "handlers": [
            {
                "_target_": "ClassificationSaver",
                "output_dir": "@output_dir",
                "filename": "predictions.csv",
                "batch_transform": "$lambda batch: [{'filename_or_obj': b['path']} for b in batch]",
                "output_transform": "$monai.handlers.from_engine(['pred'])",
            }
        ],
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "val_handlers": "@handlers",
        },
        "evaluating": ["$@evaluator.run()"],
        "run": ["$@evaluator.run()"],
    }
