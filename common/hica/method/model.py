"""The model of stage 1 and 2: an adapted image tower beside a text bank.

Prediction is cosine similarity to the class texts, so a class never trained on can be named by
adding its text. Image features are centred before they are compared: features of networks that
end in a rectifier, and of contrastive towers, lie in a narrow cone in which all cosines are alike.
They may be divided by their spread, too: then no few features, and no layer, drown the others.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from hica.errors import MessageError
from hica.text.bank import TextBank
from hica.towers.adaptation import AdaptedTower
from hica.wire.weight_names import BANK_CLASSES, BANK_FINDINGS


class AlignmentModel(nn.Module):
    """Adapted tower, centre, text bank and intercepts.

    With `unit_features` features have norm 1 before the centre is subtracted (CL2N, Wang et al.
    2019, has it after): then no image moves the centre by more than another, as privacy needs it.

    Attributes:
        tower: The adapted image tower.
        centre: [2, D], the mean subtracted from whole-image (row 0) and region features (row 1).
        scale: [2, D], what they are divided by then; 1 unless the study has features scaled.
        share: [D], what they are multiplied by at last, so that each layer of a tower that has
            several weighs as much as any other, however wide it is.
        classes: Class texts [C, D], at first those of the bank; trained where `train_text_bank`.
        findings: Finding texts [M, D]; likewise.
        finding_classes: [M, C] bool, which finding speaks for which class.
        bias: [C], added to the logits of a prediction (`calibration`); zero until estimated.
    """

    centre: Tensor
    scale: Tensor
    share: Tensor
    bias: Tensor
    finding_classes: Tensor

    def __init__(
        self,
        tower: AdaptedTower,
        bank: TextBank,
        train_text_bank: bool,
        unit_features: bool = False,
    ) -> None:
        super().__init__()
        self.tower = tower
        self.unit_features = unit_features
        self.register_buffer("centre", torch.zeros(2, bank.classes.shape[1]))
        self.register_buffer("scale", torch.ones(2, bank.classes.shape[1]))
        self.register_buffer("share", layer_shares(tower.tower.widths), persistent=False)
        self.register_buffer("bias", torch.zeros(len(bank.classes)))
        self.register_buffer("finding_classes", bank.finding_classes, persistent=False)
        self.classes = nn.Parameter(bank.classes.clone(), requires_grad=train_text_bank)
        self.findings = nn.Parameter(bank.findings.clone(), requires_grad=train_text_bank)

    def features(self, hidden: Tensor, region_weights: Tensor) -> tuple[Tensor, Tensor]:
        """Images [B, D] and regions [B, K, D] before centring; absent regions are zero.

        `hidden` [B, ...] is the output of `tower.frozen`, `region_weights` [B, K, g, g] lie on the
        patch grid.
        """
        pooled, regions = self.tower(hidden, region_weights)
        if self.unit_features:
            return functional.normalize(pooled, dim=-1), functional.normalize(regions, dim=-1)
        return pooled, regions

    def forward(self, hidden: Tensor, region_weights: Tensor) -> tuple[Tensor, Tensor]:
        """Unit embeddings of images [B, D] and regions [B, K, D], from what `features` takes."""
        pooled, regions = self.features(hidden, region_weights)
        return self.placed(pooled, 0), self.placed(regions, 1)

    def placed(self, features: Tensor, row: int) -> Tensor:
        """Unit rows of features [..., D], centred and scaled as images (row 0) or regions (1)."""
        standard = (features - self.centre[row]) / self.scale[row] * self.share
        return functional.normalize(standard, dim=-1)

    def unit_bank(self) -> tuple[Tensor, Tensor]:
        """Class texts [C, D] and finding texts [M, D] with unit rows."""
        return functional.normalize(self.classes, dim=-1), functional.normalize(
            self.findings, dim=-1
        )

    def scores(
        self, images: Tensor, regions: Tensor, valid: Tensor, finding_classes: Tensor, blend: float
    ) -> Tensor:
        """Cosine [B, C] of each image to each class text, blended with what its regions show.

        A region speaks for a class by its best finding of that class; the regions of an image are
        averaged. Images without a valid region and classes without findings keep the image score.

        Images [B, D] and regions [B, K, D] are unit rows, `valid` is bool [B, K]; `finding_classes`
        [M, C] bool says which finding speaks for which class, `blend` in 0..1 is the share of the
        region score.
        """
        classes, findings = self.unit_bank()
        whole = images @ classes.T  # [B, C]
        if blend == 0.0 or not len(findings):
            return whole
        similarity = (regions @ findings.T).unsqueeze(-1)  # [B, K, M, 1]
        lowest = torch.finfo(similarity.dtype).min
        best = similarity.masked_fill(~finding_classes, lowest).amax(dim=2)  # [B, K, C]
        share = valid.float() / valid.sum(dim=1, keepdim=True).clamp(min=1)  # [B, K]
        regional = (share.unsqueeze(-1) * best).sum(dim=1)  # [B, C]
        speaks = valid.any(dim=1, keepdim=True) & finding_classes.any(dim=0)  # [B, C]
        return torch.where(speaks, (1 - blend) * whole + blend * regional, whole)

    def shared(self) -> dict[str, nn.Parameter]:
        """What is trained, sent and averaged, by name."""
        weights = {f"tower.{name}": value for name, value in self.tower.trainable().items()}
        if self.classes.requires_grad:
            weights[BANK_CLASSES] = self.classes
            weights[BANK_FINDINGS] = self.findings
        return weights

    @torch.no_grad()
    def load(self, shared: dict[str, Tensor], centre: Tensor, scale: Tensor, bias: Tensor) -> None:
        """Take over what the federation has learnt: trained weights and all that is estimated.

        Weights have the names of `shared`; `centre`, of this site, and `scale` are [2, D], `bias`
        is [C].

        Raises:
            MessageError: Names or shapes are not those of the model.
        """
        self.load_shared(shared)
        self.centre.copy_(centre)
        self.scale.copy_(scale)
        self.bias.copy_(bias)

    @torch.no_grad()
    def load_shared(self, arrays: dict[str, Tensor]) -> None:
        """Copy weights of the names of `shared` into the model.

        Raises:
            MessageError: Names or shapes are not those of `shared`.
        """
        parameters = self.shared()
        if arrays.keys() != parameters.keys():
            difference = sorted(arrays.keys() ^ parameters.keys())
            raise MessageError(f"weights do not fit the study's model: {difference[:5]} differ")
        for name, parameter in parameters.items():
            if arrays[name].shape != parameter.shape:
                raise MessageError(
                    f"weight {name!r} has shape {tuple(arrays[name].shape)}, "
                    f"the study's model has {tuple(parameter.shape)}"
                )
            parameter.copy_(arrays[name].to(parameter.device, parameter.dtype))


def layer_shares(widths: Sequence[int]) -> Tensor:
    """[D]: 1 / √width of the layer that each feature belongs to; 1 where there is one layer."""
    if len(widths) == 1:
        return torch.ones(widths[0])
    return torch.cat([torch.full((width,), width**-0.5) for width in widths])
