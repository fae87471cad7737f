"""Image and text towers by name, behind one interface (`hica.towers.base`).

| name | image tower | text tower |
|---|---|---|
| `tiny` | built in | built in, words of the study's own texts |
| `timm/NAME` | timm's | – |
| `same` | – | the text side of the image tower |
| `ViT-B-16`, `hf-hub:…`, `local-dir:…` | open_clip's | open_clip's |
| `hf:…` | transformers', open_clip's or timm's, as the folder has it | likewise, or an encoder |

timm, open_clip and transformers are imported only when one of theirs is asked for.
What users have and what they write: `docs/weights.md`.
"""

from pathlib import Path

from hica.errors import ConfigurationError
from hica.images.preprocess import Preprocess
from hica.towers.base import Encoded, ImageTower, TextTower
from hica.towers.preprocessing import STUDY, with_sidecar
from hica.towers.weights import Colour, Wanted

FOLDERS = ("hf:", "local-dir:", "hf-hub:")
"""Beginnings of the names of what lies in a folder."""

__all__ = ["Encoded", "ImageTower", "TextTower", "load_image_tower", "load_text_tower"]


def load_image_tower(
    image: str,
    *,
    pretrained: str | None = None,
    checkpoint: Path | None = None,
    sha256: str | None = None,
    pad_type: str = "",
    image_size: int | None = None,
    mean: Colour | None = None,
    std: Colour | None = None,
    seed: int = 0,
    weights: Path = Path(),
    hubs: bool = False,
) -> ImageTower:
    """Build an image tower; the same arguments give the same weights on every machine.

    Args:
        image: `tiny`, `timm/NAME`, `hf:…`, or a name open_clip takes.
        pretrained: Tag of weights that timm or open_clip know; needs `sha256`.
        checkpoint: Weights on disk; goes before `pretrained`.
        sha256: Expected hash of `checkpoint`, of the file of `pretrained`, or of a folder
            (`hica.towers.folders.folder_sha256`), in hex.
        pad_type: timm's; `same` for weights converted from TensorFlow.
        image_size: Side S in pixels; default the model's own.
        mean: Mean of the colours in 0..1; default the weights' own (`hica.towers.preprocessing`).
        std: Their standard deviation; default the weights' own.
        seed: What weights are drawn from where neither `pretrained` nor `checkpoint` gives them;
            only `train = "full"` makes sense of drawn weights.
        weights: Folder below which a `local-dir:` or `hf:` lies.
        hubs: Whether what is pinned may be fetched from a hub.

    Raises:
        WeightsError: Weights that are missing, of another hash or of another model, not pinned, or
            not here and not to be fetched.
        ConfigurationError: A model that is not known or cannot be cut into patches.
    """
    if image == "tiny":
        if checkpoint is not None or pretrained is not None or pad_type:
            raise ConfigurationError(
                'model.image = "tiny" is drawn from the seed: remove model.checkpoint, '
                "model.pretrained and model.pad_type"
            )
        if image_size not in (None, 64):
            raise ConfigurationError(
                f'model.image_size = {image_size}: the tower "tiny" takes 64 pixels; remove it'
            )
        from hica.towers.tiny import TinyImageTower

        half = (0.5, 0.5, 0.5)
        tiny = TinyImageTower(seed, Preprocess(64, mean or half, std or half, "bilinear", "squash"))
        tiny.sources = {key: STUDY for key, said in (("mean", mean), ("std", std)) if said}
        return tiny
    wanted = with_sidecar(
        Wanted(pretrained, checkpoint, sha256, pad_type, image_size, mean, std, seed, weights, hubs)
    )
    if image.startswith("timm/"):
        from hica.towers.timm_tower import load_timm

        return load_timm(image.removeprefix("timm/"), wanted)
    if image.startswith("hf:"):
        from hica.towers import hub_layouts

        return hub_layouts.load_image(image, wanted)
    if wanted.pad_type:
        raise ConfigurationError(
            f'model.pad_type = "{wanted.pad_type}": only timm/… towers have one; remove it'
        )
    from hica.towers.openclip import load_image

    return load_image(image, wanted)


def load_text_tower(
    text: str,
    *,
    image: str = "tiny",
    pretrained: str | None = None,
    checkpoint: Path | None = None,
    sha256: str | None = None,
    text_sha256: str | None = None,
    vocabulary: list[str],
    seed: int = 0,
    weights: Path = Path(),
    hubs: bool = False,
    pinned: bool = False,
) -> TextTower:
    """Build a text tower: `tiny`, `same` (the text side of `image`), `hf:…`, or one of open_clip.

    `pretrained` is open_clip's tag of the weights; `checkpoint`, with `same` only, are weights on
    disk of the whole pair, and `sha256` the hash in hex of either; without them weights are drawn
    from `seed`. `text_sha256` is the hash of another folder than the image tower's. The `tiny`
    tower knows the words of the texts in `vocabulary`. `weights` and `hubs` are as in
    `load_image_tower`. `pinned` is whether a folder that is pinned neither by commit nor by
    hash is refused.

    Raises:
        WeightsError: Weights that are missing, of another hash or of another model, not pinned, or
            not here and not to be fetched.
        ConfigurationError: A model that is not known, a second hash of one pair, or `same`
            where the image tower has no pair.
    """
    if text == "tiny" and text_sha256 is None:
        from hica.towers.tiny import TinyTextTower

        return TinyTextTower(vocabulary, seed)
    if text.startswith("timm/") or (text == "same" and (image == "tiny" or image[:5] == "timm/")):
        raise ConfigurationError(
            f'model.text = "{text}": {image if text == "same" else text} has no text side; '
            'use model.text = "tiny", or a name open_clip takes'
        )
    same = text == "same"
    if text_sha256 is not None and (same or text == image or not text.startswith(FOLDERS)):
        raise ConfigurationError(
            f'model.text_sha256: model.text = "{text}" is no folder of its own; remove it, and pin '
            "a pair by model.sha256"
        )
    wanted = Wanted(
        pretrained,
        checkpoint if same else None,
        sha256 if same or text == image else text_sha256,  # the first is of the image's pair
        pad_type="",
        image_size=None,
        mean=None,
        std=None,
        seed=seed,
        weights=weights,
        hubs=hubs,
        pinned=pinned,
    )
    name = image if same else text
    if name.startswith("hf:"):
        from hica.towers import hub_layouts

        return hub_layouts.load_text(name, wanted)
    from hica.towers.openclip import load_text

    return load_text(name, wanted)
