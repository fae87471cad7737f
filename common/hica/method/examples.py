"""Images as the model takes them, in memory."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Examples:
    """Images as the model takes them, with the cached output of all that is frozen.

    Attributes:
        hidden: [n, V, ...] output of `AdaptedTower.frozen` per view.
        region_weights: [n, V, K, g, g] region weights on the patch grid.
        valid: [n, V, K] which regions exist: a crop may have cut one away.
        labels: [n] class index, or cluster index in stage 1; -1 without.
        positives: [n, M] findings that the image's regions may show.
        groups: Patient or duplicate group of each image.
    """

    hidden: Tensor
    region_weights: Tensor
    valid: Tensor
    labels: Tensor
    positives: Tensor
    groups: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, index: Tensor) -> "Examples":
        """Some of the images."""
        return Examples(
            self.hidden[index],
            self.region_weights[index],
            self.valid[index],
            self.labels[index],
            self.positives[index],
            tuple(self.groups[row] for row in index.tolist()),
        )

    def shown(self, index: Tensor, view: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden [B, ...] and region weights [B, K, g, g] of view `view[i]` of image `index[i]`.

        Of the type and on the device of `like`; pixels stay bytes.
        """
        hidden = self.hidden[index, view].to(like.device)
        weights = self.region_weights[index, view].to(like)
        return hidden if hidden.dtype == torch.uint8 else hidden.to(like.dtype), weights

    def first_views(self, count: int) -> "Examples":
        """The same images in fewer views."""
        return replace(
            self,
            hidden=self.hidden[:, :count],
            region_weights=self.region_weights[:, :count],
            valid=self.valid[:, :count],
        )


def joined(shots: Examples, more: Examples) -> Examples:
    """Shots, and further images whose first view stands for all of theirs."""
    views = shots.hidden.shape[1]

    def together(one: Tensor, other: Tensor) -> Tensor:
        return torch.cat([one, other[:, :1].expand(-1, views, *other.shape[2:])])

    return Examples(
        hidden=together(shots.hidden, more.hidden),
        region_weights=together(shots.region_weights, more.region_weights),
        valid=together(shots.valid, more.valid),
        labels=torch.cat([shots.labels, more.labels]),
        positives=torch.cat([shots.positives, more.positives]),
        groups=shots.groups + more.groups,
    )
