"""Sections: the tables of `study.toml`, each setting with what it is for.

Unknown keys are refused, so that a misspelt setting never passes for a default.
"""

from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from hica.study.written import Name, Sha256, WrittenAs

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=0)]
Spread = Annotated[float, Field(gt=0.0, le=1.0)]


class Section(BaseModel):
    """A table of the study file: immutable, unknown keys refused.

    The words below a key describe it; `docs/reference.md` is made of them.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class StudySection(Section):
    """`[study]`: what it is called and what every random draw starts from."""

    name: Name
    """What the study is called in every report."""
    seed: Count = 0
    """Of shots, splits, drawn weights and orders: the same seed gives the same run."""
    modality: str = ""
    """What kind of images, in words; for people and for findings that are proposed."""


class ModelSection(Section):
    """`[model]`: the towers and what of the image tower is trained."""

    image: str = "tiny"
    """`tiny`, `timm/NAME`, `hf:FOLDER` (a model as it is on the hub), or what open_clip takes
    (`ViT-B-16`, `hf-hub:…`, `local-dir:…`); what to write of which weights: `docs/weights.md`."""
    text: str = "tiny"
    """`tiny` (built in, trained on the study's texts), `same` (the image tower's own pair),
    `hf:FOLDER` (a pair's text side, or an encoder of sentences), or what open_clip takes."""
    text_sha256: Sha256 | None = None
    """Hash of the folder of `text`, where that is another than `image`. Needed where sites read
    reports, for they load it, too."""
    pretrained: str | None = None
    """timm's or open_clip's tag of weights of `image`, for example `openai`; needs `sha256`."""
    checkpoint: str | None = None
    """Weights on disk, found below the site's own data or checkpoint folder."""
    sha256: Sha256 | None = None
    """Hash of `checkpoint`, of the tag's file or of the folder of `hf:` and `local-dir:`, so that
    all sites start from the same weights."""
    pad_type: Literal["", "same"] = ""
    """timm's `pad_type`: `same` for weights converted from TensorFlow."""
    image_size: PositiveInt | None = None
    """Side of the square that images are made, in pixels; without it the tower's own."""
    mean: tuple[Fraction, Fraction, Fraction] | None = None
    """Mean of the colours, which lie in 0..1, as the weights were trained with it. Needed with
    `checkpoint`, here or in the JSON beside the weights file; two that differ are refused."""
    std: tuple[Spread, Spread, Spread] | None = None
    """Their standard deviation, likewise."""
    layers: Count = 0
    """How many of the image tower's last blocks are features of an image beside its embedding, each
    at the same weight. With `last-N` at most N + 1."""
    maps: Literal["fine", "coarse"] = "fine"
    """Patches of several layers: on the finest of their grids, or on the coarsest."""
    train: Annotated[
        str,
        WrittenAs(
            "adapter|lora|full|last-[1-9][0-9]?", '"adapter", "lora", "full" or "last-N", N to 99'
        ),
    ] = "adapter"
    """What of the image tower is trained: `adapter` (a small layer after it), `lora` (factors
    in it), `last-N` (its last N blocks and the head) or `full`."""
    adapter_width: PositiveInt = 128
    """Width of the adapter's middle, for `train = "adapter"`."""
    lora_rank: PositiveInt = 8
    """Rank of the factors, for `train = "lora"`."""
    lora_alpha: PositiveFloat = 8.0
    """What the factors add is scaled by `lora_alpha` / `lora_rank`."""

    @property
    def preprocess_words(self) -> str:
        """What the study itself says of how images are prepared for the tower."""
        colours = {key: getattr(self, key) for key in ("mean", "std") if getattr(self, key)}
        said = {key: " ".join(f"{part:g}" for part in value) for key, value in colours.items()}
        said |= {
            key: getattr(self, key) for key in ("image_size", "pad_type") if getattr(self, key)
        }
        words = [f"{key} {value}" for key, value in said.items()]
        if self.checkpoint is None or len(colours) == 2:
            return "; ".join(
                [", ".join(words), "the rest as built in"] if words else ["as built in"]
            )
        missing = " and ".join(key for key in ("mean", "std") if key not in colours)
        return ", ".join(
            [*words, f"{missing} from the JSON beside the weights, which must have it"]
        )

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
    """The diagnosis, as the labels of the manifests have it."""
    prompts: list[str]
    """Whole sentences that describe it; their mean is the class text."""
    findings: list[str] = []
    """Short phrases for one thing that can be seen in one region; manifests name them."""
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
    """Epochs in which the text tower is refined on the study's texts; 0: it stays as it is."""
    learning_rate: PositiveFloat = 1e-3
    """AdamW's, of that refinement."""
    max_similarity: Annotated[float, Field(gt=-1.0, lt=1.0)] = 0.95
    """A bank with two class texts closer than this (cosine, after centring) is refused."""


class ReportsSection(Section):
    """`[reports]`: what sites look for in the reports of their images; no report leaves a site."""

    findings: dict[Annotated[str, Field(min_length=1, max_length=120)], list[str]] = {}
    """Findings by name, each with texts that say it, as sentences or phrases: whichever is nearest
    counts. Without any, the findings of the classes are looked for, each by its own words."""

    @model_validator(mode="after")
    def _findings_have_texts(self) -> Self:
        for name, texts in self.findings.items():
            if not texts or not all(text.strip() for text in texts):
                raise ValueError(
                    f"findings: {name!r} has no texts, or an empty one; give at least one phrase, "
                    f"for example {name!r} = [{name!r}]"
                )
        return self


class PretrainingSection(Section):
    """`[pretraining]`: stage 1, pseudo-labels on unlabelled images. `rounds = 0`: without."""

    rounds: Count = 2
    """Rounds of training on pseudo-labels; 0: stage 1 is left out."""
    max_images: PositiveInt = 200
    """Training images a site uses here and for the centre: of more, always the same ones."""
    clusters: Annotated[int, Field(ge=2)] = 16
    """Pseudo-labels: more than classes, as a class has several looks."""
    lloyd_rounds: PositiveInt = 5
    """Iterations of federated k-means, each one exchange."""
    recluster_every: Count = 0
    """Re-cluster before every n-th pretraining round (0: once, before the first)."""
    local_epochs: PositiveInt = 1
    """Epochs at a site in each round."""
    batch_size: PositiveInt = 32
    """Images in a step of training."""
    learning_rate: PositiveFloat = 1e-4
    """AdamW's."""
    temperature: PositiveFloat = 0.1
    """τ, by which cosines are divided before the softmax."""


class AlignmentSection(Section):
    """`[alignment]`: stage 2, L = L_global + λ1·L_local + λ2·L_cross on the labelled episode."""

    rounds: PositiveInt = 8
    """Rounds of training on the labelled shots."""
    shots: PositiveInt = 20
    """Labelled images of each class and site; a site with fewer gives all it has."""
    local_epochs: PositiveInt = 2
    """Epochs at a site in each round."""
    batch_size: PositiveInt = 32
    """Images in a step of training."""
    learning_rate: PositiveFloat = 3e-4
    """AdamW's, of the image tower."""
    bank_learning_rate: PositiveFloat = 3e-3
    """AdamW's, of the text bank."""
    weight_decay: NonNegative = 0.01
    """AdamW's, of the image tower."""
    temperature: PositiveFloat = 0.1
    """τ, by which cosines are divided before the softmax."""
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
    """Whether the class texts are trained, too."""
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
    """Whether a test image is also seen mirrored, and the two are averaged."""
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


class PersonalSection(Section):
    """`[personal]`: what a site has for itself beside the shared model, and never sends.

    After the last round every site trains on from the shared model on its own shots, and once more
    alone; it predicts with all three.
    """

    epochs: Count = 32
    """Over the site's own shots, at the rates of `[alignment]`; 0: sites predict with the shared
    model, and do not find out what joining gave."""
    weight: Fraction | None = None
    """Share of the site's own two models in the logits of its predictions. Left out: each site
    measures by how much its class means differ from those of all sites, and takes at least a
    third."""


class RegionsSection(Section):
    """`[regions]`: which parts of an image the regional term looks at."""

    method: Literal[
        "masks", "otsu", "superpixels", "grid", "sam", "hf-sam", "token-cut", "unet"
    ] = "otsu"
    """Where regions come from: `masks` of the manifests; `otsu`, `superpixels`, `grid` from
    the pixels; `token-cut` from patches of the frozen tower; `sam`, `hf-sam`, `unet` with
    `checkpoint`."""
    count: PositiveInt = 4
    """Regions of an image, at most."""
    checkpoint: str | None = None
    """Weights below the site's own folder of weights; for `hf-sam` a folder there, else the hub's
    `OWNER/NAME@COMMIT`."""
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
    """Sites that must answer a round."""
    gather: NonNegative = 60.0
    """Seconds a deployed run waits at its start for sites beyond the quorum, and later for what a
    site that joins can take part in."""
    deadline: PositiveFloat = 3600.0
    """Seconds a round waits for its sites."""
    retries: Count = 2
    """How often a round below quorum is tried again before the run stops."""
    aggregation: Literal["mean", "adam", "yogi", "trimmed-mean", "median", "krum"] = "mean"
    """How the sites' updates become one."""
    weighting: Literal["examples", "sites"] = "examples"
    """Whether a site counts by its images or each site the same; for `mean`, `adam` and `yogi`."""
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
    """δ of that ε: well below one over the number of patients. Needed with a mechanism, as is ε."""
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
