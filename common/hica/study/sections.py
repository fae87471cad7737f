"""Sections: the tables of `study.toml`, each setting with what it is for.

Unknown keys are refused, so that a misspelt setting never passes for a default.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _./+-]{0,63}$")]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=0)]


class Section(BaseModel):
    """A table of the study file: immutable, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class StudySection(Section):
    """`[study]`: what it is called and what every random draw starts from."""

    name: Name
    seed: Count = 0
    modality: str = ""


class ModelSection(Section):
    """`[model]`: the towers and what of the image tower is trained."""

    image: str = "tiny"
    """`tiny`, `timm/NAME`, or what open_clip takes (`ViT-B-16`, `hf-hub:…`, `local-dir:…`)."""
    text: str = "tiny"
    """`tiny` (built in, trained on the study's texts), `same` (the image tower's own pair), or
    what open_clip takes."""
    pretrained: str | None = None
    """open_clip's pretrained tag of `image`, for example `openai`."""
    checkpoint: str | None = None
    """Weights on disk, found below the site's own data or checkpoint folder."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    """Hash of `checkpoint`; required with it, so that all sites start from the same weights."""
    pad_type: Literal["", "same"] = ""
    """timm's `pad_type`: `same` for weights converted from TensorFlow."""
    image_size: PositiveInt | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    layers: Count = 0
    """How many of the image tower's last blocks are features of an image beside its embedding, each
    at the same weight. With `last-N` at most N + 1."""
    maps: Literal["fine", "coarse"] = "fine"
    """Patches of several layers: on the finest of their grids, or on the coarsest."""
    train: Annotated[str, Field(pattern=r"^(adapter|lora|full|last-[1-9][0-9]?)$")] = "adapter"
    adapter_width: PositiveInt = 128
    lora_rank: PositiveInt = 8
    lora_alpha: PositiveFloat = 8.0

    @model_validator(mode="after")
    def _checkpoint_is_pinned(self) -> Self:
        if self.checkpoint is not None and self.sha256 is None:
            raise ValueError(
                "checkpoint needs sha256: without it sites could start from different weights; "
                f"run `sha256sum {self.checkpoint}` and add the result as model.sha256"
            )
        return self


class ClassSection(Section):
    """`[[classes]]`: one diagnosis, the sentences that describe it and what is seen in it."""

    name: Name
    prompts: list[str]
    findings: list[str] = []
    healthy: bool = False
    """Findings of a healthy class are seen in every image: positives of all classes."""

    @model_validator(mode="after")
    def _has_prompts(self) -> Self:
        if not [prompt for prompt in self.prompts if prompt.strip()]:
            raise ValueError(
                f"class {self.name!r} has no prompts; give at least one sentence, "
                f'for example prompts = ["an ultrasound image of {self.name} tissue"]'
            )
        return self


class TextSection(Section):
    """`[text]`: how the text tower is refined and how close class texts may lie."""

    corpus: str | None = None
    """A text file, `file.csv:COLUMN`, or a JSON of prompts, below the coordinator's data folder."""
    epochs: Count = 10
    learning_rate: PositiveFloat = 1e-3
    max_similarity: Annotated[float, Field(gt=-1.0, lt=1.0)] = 0.95
    """A bank with two class texts closer than this (cosine, after centring) is refused."""


class PretrainingSection(Section):
    """`[pretraining]`: stage 1, pseudo-labels on unlabelled images. `rounds = 0`: without."""

    rounds: Count = 2
    max_images: PositiveInt = 200
    """Training images a site uses here and for the centre: of more, always the same ones."""
    clusters: Annotated[int, Field(ge=2)] = 16
    lloyd_rounds: PositiveInt = 5
    recluster_every: Count = 0
    """Re-cluster before every n-th pretraining round (0: once, before the first)."""
    local_epochs: PositiveInt = 1
    batch_size: PositiveInt = 32
    learning_rate: PositiveFloat = 1e-4
    temperature: PositiveFloat = 0.1


class AlignmentSection(Section):
    """`[alignment]`: stage 2, L = L_global + λ1·L_local + λ2·L_cross on the labelled episode."""

    rounds: PositiveInt = 8
    shots: PositiveInt = 20
    local_epochs: PositiveInt = 2
    batch_size: PositiveInt = 32
    learning_rate: PositiveFloat = 3e-4
    bank_learning_rate: PositiveFloat = 3e-3
    weight_decay: NonNegative = 0.01
    temperature: PositiveFloat = 0.1
    local_weight: NonNegative = 0.5
    """λ1, weight of the regional term."""
    cross_weight: NonNegative = 0.5
    """λ2, weight of the cross-class hinge."""
    margin: NonNegative = 0.2
    """δ of the cross-class hinge, in cosine."""
    contrast: Literal["bank", "batch"] = "bank"
    """`bank`: against the shared texts, a sum over single images; `batch`: the paper's form."""
    assignment: Literal["all", "best", "matching"] = "all"
    """Which of an image's findings a region is pulled to."""
    train_text_bank: bool = True
    bank_start: Literal["text", "prototypes", "means"] = "prototypes"
    """Where the trained bank starts: the texts, the texts blended with federated class means, or
    these alone, for towers that no text was ever held against."""
    text_pull: NonNegative = 0.0
    """Weight of ‖bank − start‖², which keeps a trained bank near its start."""
    centring: Literal["global", "site", "none"] = "global"
    """Mean subtracted from image features: over all sites, the site's own, or none."""
    centre_images: PositiveInt = 30
    """Images of a site without labels that this mean is taken from after every round, at most. In a
    private study all of them, as its noise does not grow with their number."""
    scaling: Literal["global", "none"] = "none"
    """`global`: features are divided by their spread over all sites, so that all weigh alike."""
    label_propagation: bool = False
    """Whether a site spreads its shots' labels to its unlabelled images, where cross-validation on
    the shots says that it helps (`hica.method.label_propagation`)."""
    region_view: bool = False
    """Whether an image is shown once more, cut to its largest region: at training and at the test.
    With `regions.method = "masks"` a test image then needs an outline, too."""
    views: PositiveInt = 6
    """Cached views of a labelled image (identity, flip, then random crops and gains)."""
    flip_at_test: bool = True
    region_blend: Fraction = 0.0
    """Share of the region scores in the prediction."""

    @model_validator(mode="after")
    def _scale_has_a_centre(self) -> Self:
        if self.scaling != "none" and self.centring == "none":
            raise ValueError(
                'scaling = "global" is the spread about a centre: set centring = "global" or '
                '"site", or scaling = "none"'
            )
        return self

    @property
    def starts_at_means(self) -> bool:
        """Whether class means are asked for, to start the bank with."""
        return self.train_text_bank and self.bank_start != "text"


class CalibrationSection(Section):
    """`[calibration]`: after stage 2, one intercept per class for the averaged model."""

    rounds: Count = 4
    """Newton steps, each one exchange; 0: no intercepts."""
    ridge: PositiveFloat = 0.03
    """ρ, the weight of ‖intercepts‖² beside the mean cross-entropy."""


class RegionsSection(Section):
    """`[regions]`: which parts of an image the regional term looks at."""

    method: Literal[
        "masks", "otsu", "superpixels", "grid", "sam", "hf-sam", "token-cut", "unet"
    ] = "otsu"
    count: PositiveInt = 4
    checkpoint: str | None = None
    """Weights below the site's own folder of weights; for `hf-sam` a folder there, else the hub's
    `OWNER/NAME` or `OWNER/NAME@REVISION`."""
    model: Literal["vit_b", "vit_l", "vit_h"] = "vit_b"
    """Architecture of the checkpoint of `sam`."""

    @model_validator(mode="after")
    def _has_weights(self) -> Self:
        needed = {
            "sam": "the path of a segment-anything checkpoint of the kind named in regions.model",
            "hf-sam": "a folder in Hugging Face's layout or a name such as facebook/sam-vit-base",
            "unet": "the path of a U-Net's state dict",
        }
        if self.method in needed and self.checkpoint is None:
            raise ValueError(
                f'regions.method = "{self.method}" needs regions.checkpoint, {needed[self.method]}'
            )
        return self


class FederationSection(Section):
    """`[federation]`: who must answer, how long is waited, and how updates are combined."""

    quorum: PositiveInt = 2
    gather: NonNegative = 60.0
    """Seconds a deployed run waits at its start for sites beyond the quorum, and later for what a
    site that joins can take part in."""
    deadline: PositiveFloat = 3600.0
    """Seconds a round waits for its sites."""
    retries: Count = 2
    """How often a round below quorum is tried again before the run stops."""
    aggregation: Literal["mean", "adam", "yogi", "trimmed-mean", "median", "krum"] = "mean"
    weighting: Literal["examples", "sites"] = "examples"
    precision: Literal["single", "half"] = "single"
    """In which weights travel and are kept between rounds. Half as many bytes; but float16 has 11
    bits, so what a round changes by less than 1/2000 of a weight is lost."""
    server_learning_rate: PositiveFloat = 0.01
    """η of `adam` and `yogi`."""
    trim: Annotated[float, Field(ge=0.0, lt=0.5)] = 0.2
    """Share cut off at either end by `trimmed-mean`."""
    malicious: Count = 0
    """Number of bad sites `krum` withstands."""
    max_update_norm: PositiveFloat = 1e4
    """An update whose distance from the broadcast weights exceeds this is refused."""
    min_count: PositiveInt = 5
    """Counts below this are not reported by a site."""

    @property
    def dtype(self) -> str:
        """NumPy's name of `precision`."""
        return {"single": "float32", "half": "float16"}[self.precision]


class PrivacySection(Section):
    """`[privacy]`: what anyone who sees what leaves a site may learn of one patient."""

    mechanism: Literal["none", "dp-sgd", "prototypes"] = "none"
    """`dp-sgd`: training and statistics are differentially private. `prototypes`: nothing is
    trained, `alignment.rounds` is not used; class means are released once, with noise. `none`:
    exact sums and weights leave."""
    unit: Literal["patient", "image"] = "patient"
    """Neighbouring data sets differ by all images of one patient, or by one image."""
    epsilon: PositiveFloat | None = None
    """Budget of a site for the whole study; noise is derived from it."""
    delta: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    max_gradient_norm: PositiveFloat = 1.0
    """To which the gradient of a unit is clipped in every step."""
    training_share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.75
    """Share of ε left to training by the statistics (centre, clusters, prototypes)."""
    cluster_dimensions: Count = 0
    """Dimensions of the random subspace in which clusters are found; 0: all."""
    secure_aggregation: bool = False
    """Whether the coordinator sees sums over sites only."""
    threshold: Annotated[float, Field(gt=0.5, le=1.0)] = 2 / 3
    """Share of the sites in a secure sum that must stay to its end."""
    noise: Literal["local", "distributed"] = "local"
    """`local`: what leaves a site is private by itself. `distributed`: the sites' noise is enough
    only in the secure sum of statistics."""

    @property
    def is_private(self) -> bool:
        """Whether what leaves is differentially private."""
        return self.mechanism != "none"
