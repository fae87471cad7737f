"""Stage 2's objective, L = L_global + λ1·L_local + λ2·L_cross (arXiv 2501.09294).

Notation: z image, rₖ its k-th region, y its class, T the class texts, F the finding texts, all of
unit length, so that a product is a cosine; τ temperature, δ margin.

Every term returns one loss per image. Against the shared text bank no term couples two images,
so the loss of a batch is a sum over single images and clipping per image, as DP-SGD does it, is
exact. The paper's in-batch forms (`batch_…`) do couple them: images of one class in a batch are
false negatives of each other. They are for the paper's tables, never for DP.
"""

from typing import Literal

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional

Assignment = Literal["all", "best", "matching"]
Contrast = Literal["bank", "batch"]


def global_loss(images: Tensor, classes: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """The whole image against the class texts, per image [B].

    L_global = -log( exp(z·T_y / τ) / Σ_c exp(z·T_c / τ) )

    Images z [B, d] and class texts T [C, d] are unit rows, labels y long [B] in 0..C-1.
    """
    return functional.cross_entropy(images @ classes.T / temperature, labels, reduction="none")


def local_loss(
    regions: Tensor,
    valid: Tensor,
    findings: Tensor,
    positives: Tensor,
    temperature: float,
    assignment: Assignment,
) -> Tensor:
    """Each region against the finding texts, per image [B].

    L_local = - mean_k mean_{m ∈ P_k} log( exp(rₖ·F_m / τ) / Σ_j exp(rₖ·F_j / τ) ),  k valid

    Regions r [B, K, d] and finding texts F [M, d] are unit rows, M may be 0; rows that are not
    `valid`, bool [B, K], are ignored. Which finding a region shows is not labelled, only the set P
    of findings of its image, bool [B, M]. The region's own positives P_k are, by `assignment`,

    - `all`: P;
    - `best`: the finding of P nearest to the region;
    - `matching`: different findings of P for different regions, chosen by the Hungarian algorithm
      for the largest sum of cosines; regions in excess of P take their nearest.

    An image without a valid region or without positives has loss 0 and gradient 0.
    """
    if len(findings) == 0:
        return 0.0 * regions.sum(dim=(1, 2))
    cosines = regions @ findings.T  # (B, K, M)
    log_probability = functional.log_softmax(cosines / temperature, dim=-1)  # (B, K, M)
    if assignment == "all":
        summed = (log_probability * positives.unsqueeze(1)).sum(dim=-1)  # (B, K)
        losses = -summed / positives.sum(dim=1, keepdim=True).clamp(min=1)
    else:
        chosen = _assign(cosines, valid, positives, assignment)
        losses = -log_probability.gather(-1, chosen.unsqueeze(-1)).squeeze(-1)  # (B, K)
    return _mean_over_regions(losses, valid & positives.any(dim=1, keepdim=True))


def cross_loss(images: Tensor, classes: Tensor, labels: Tensor, margin: float) -> Tensor:
    """Hinge that keeps the image nearer to its own class text than to any other by a margin δ.

    L_cross = 1/(C-1) · Σ_{c ≠ y} max(0, δ - z·T_y + z·T_c)

    Images z [B, d] and class texts T [C, d] are unit rows, labels y long [B]; δ is a cosine.
    """
    cosines = images @ classes.T  # (B, C)
    own = cosines.gather(1, labels.unsqueeze(1))  # (B, 1)
    others = torch.arange(len(classes), device=labels.device) != labels.unsqueeze(1)  # (B, C)
    hinge = functional.relu(margin - own + cosines) * others
    return hinge.sum(dim=1) / max(len(classes) - 1, 1)


def batch_global_loss(images: Tensor, texts: Tensor, temperature: float) -> Tensor:
    """The paper's L_global: symmetric InfoNCE between the images and texts of one batch.

    L_i = - ½·log( exp(z_i·t_i / τ) / Σ_j exp(z_i·t_j / τ) )
          - ½·log( exp(z_i·t_i / τ) / Σ_j exp(z_j·t_i / τ) )

    Images z and the class text t of each are unit rows [B, d]; the result is [B]. The loss of an
    image depends on the rest of the batch: not for DP.
    """
    logits = images @ texts.T / temperature  # (B, B)
    to_text = functional.log_softmax(logits, dim=1).diagonal()
    to_image = functional.log_softmax(logits, dim=0).diagonal()
    return -(to_text + to_image) / 2


def batch_local_loss(
    regions: Tensor,
    valid: Tensor,
    findings: Tensor,
    positives: Tensor,
    temperature: float,
    assignment: Assignment,
) -> Tensor:
    """The paper's L_local: symmetric InfoNCE between the regions and finding texts of one batch.

    Every valid region of the batch is paired with one text, the finding `assignment` gives it (for
    `all`, the normalised mean of its image's findings), and `batch_global_loss` is taken over all
    pairs, then averaged over each image's regions. It depends on the rest of the batch: not for DP.
    Arguments and result as in `local_loss`.
    """
    if len(findings) == 0:
        return 0.0 * regions.sum(dim=(1, 2))
    if assignment == "all":
        mean = functional.normalize(positives.to(findings.dtype) @ findings, dim=-1)  # (B, d)
        texts = mean.unsqueeze(1).expand_as(regions)  # (B, K, d)
    else:
        texts = findings[_assign(regions @ findings.T, valid, positives, assignment)]  # (B, K, d)
    paired = valid & positives.any(dim=1, keepdim=True)  # (B, K)
    losses = torch.zeros_like(regions[..., 0])
    losses[paired] = batch_global_loss(regions[paired], texts[paired], temperature)
    return _mean_over_regions(losses, paired)


def _assign(cosines: Tensor, valid: Tensor, positives: Tensor, assignment: Assignment) -> Tensor:
    """The finding of each region, long [B, K], from cosines [B, K, M]; constant in the gradient."""
    cosines = cosines.detach()
    chosen = cosines.masked_fill(~positives.unsqueeze(1), -torch.inf).argmax(dim=-1)
    if assignment == "matching":
        for image in range(len(cosines)):
            rows, columns = valid[image].nonzero()[:, 0], positives[image].nonzero()[:, 0]
            own = cosines[image][rows][:, columns].cpu().numpy()
            row, column = linear_sum_assignment(own, maximize=True)
            chosen[image, rows[row]] = columns[column]
    return chosen


def _mean_over_regions(losses: Tensor, counted: Tensor) -> Tensor:
    """Mean of [B, K] over the counted regions of each image, 0 where there are none."""
    return torch.where(counted, losses, 0.0).sum(dim=1) / counted.sum(dim=1).clamp(min=1)
