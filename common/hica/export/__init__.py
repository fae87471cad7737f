"""A trained model as other programs read it, with all that has to be known of it, in one folder.

| in the folder | read by |
|---|---|
| `open_clip/` | open_clip |
| `hugging_face/` | transformers |
| `onnx/` | ONNX Runtime |
| `monai_bundle/` | MONAI |
| `hica/` | HiCA: the trained part, with its study |
| `text/` | the text matrix, names of classes and findings |
| `model_card.md`, `model_card.json` | people, and programs |
| `manifest.json`, `manifest.sig` | `verify`: hashes of all files, and who signed them |

What is written is loaded at once by the other library's own call and compared with HiCA's logits:
a form that gives others is not in the folder, and the card says why.
"""
