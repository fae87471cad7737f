"""From a manifest's rows to what the model takes, everything frozen read from the cache.

Key of a cached image: hash of its bytes and of its mask's, tower and transform, precision, region
method, views. Whatever of these changes makes a new entry; nothing is ever stale.
"""

import logging
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from hashlib import sha256

import torch
from torch import Tensor

from hica.device import autocast, precision
from hica.errors import DataError
from hica.images.cache import TensorCache, image_key
from hica.images.decode import read_bytes
from hica.images.manifest import Record
from hica.images.pixels import VERSION, image_of, pixels_of
from hica.images.views import make_views
from hica.method.examples import Examples
from hica.progress import track
from hica.regions import extract, to_grid
from hica.regions.base import RegionMethod
from hica.text.bank import TextBank
from hica.towers.adaptation import AdaptedTower

logger = logging.getLogger("hica")


@dataclass(frozen=True)
class Pipeline:
    """What turns an image into model input; shared by all images of a site in a study."""

    tower: AdaptedTower
    method: RegionMethod
    region_count: int
    cache: TensorCache
    device: torch.device
    rejected: Mapping[str, Set[int]] = field(default_factory=dict)
    """Regions that reviewers have rejected: by `regions_key`, their places among an image's."""

    def examples(
        self,
        records: Sequence[Record],
        labels: Sequence[int],
        bank: TextBank,
        views: int,
        description: str,
        zoomed: int | None = None,
    ) -> Examples:
        """Prepare records with V = `views` views each, reading or filling the cache.

        Labels are the class index of each row, -1 without; the bank gives the findings each image
        may show. The first view is the image as it is; the one at the place `zoomed` is cut to the
        largest region. `description` is for the progress bar, of which there is none without.

        Raises:
            DataError: An image or mask that cannot be read, or an image that has changed since the
                study was drawn; names the file.
        """
        shown = track(records, description, len(records)) if description else records
        entries = [self._entry(record, views, zoomed) for record in shown]
        label_tensor = torch.tensor(list(labels), dtype=torch.long)
        stacked = {
            name: torch.stack([entry[name] for entry in entries or [self._black(views, zoomed)]])
            for name in ("hidden", "weights", "valid")
        }
        return Examples(
            hidden=stacked["hidden"][: len(entries)],
            region_weights=stacked["weights"][: len(entries)],
            valid=stacked["valid"][: len(entries)].bool(),
            labels=label_tensor,
            positives=bank.positives(label_tensor, [record.findings for record in records]),
            groups=tuple(record.group for record in records),
        )

    def is_readable(self, record: Record, views: int, zoomed: int | None = None) -> bool:
        """Whether an image can be prepared; why it cannot is said in the log."""
        try:
            self._entry(record, views, zoomed)
        except DataError as error:
            logger.error("left out: %s", error)
            return False
        return True

    def _entry(self, record: Record, views: int, zoomed: int | None) -> dict[str, Tensor]:
        """Cached tensors of one image: hidden [V, ...], weights [V, K, g, g], valid [V, K]."""
        key = self._key(record, views, zoomed)
        entry = self.cache.get(key)
        if entry is None:
            entry = self._compute(record, views, zoomed)
            self.cache.put(key, entry)
        return entry

    def regions_key(self, record: Record) -> str:
        """What the regions of an image are found by: where it is the same, so are they."""
        mask = sha256(read_bytes(record.mask)).hexdigest() if record.mask else ""
        return image_key(
            image_of(record)[1],
            VERSION,
            mask,
            repr(self.tower.tower.preprocess),
            self.method.version,
            self.region_count,
        )

    def _without(self, record: Record) -> list[int]:
        """Places of an image's regions that are none any more."""
        return sorted(self.rejected.get(self.regions_key(record), ())) if self.rejected else []

    def _key(self, record: Record, views: int, zoomed: int | None) -> str:
        frozen = self.tower.cache_id
        kept = "pixels" if frozen is None else f"{frozen} in {precision(self.device)}"
        return image_key(
            image_of(record)[1],
            VERSION,
            sha256(read_bytes(record.mask)).hexdigest() if record.mask else "",
            repr(self.tower.tower.preprocess),
            kept,
            self.method.version,
            self.region_count,
            views,
            *([] if zoomed is None else [f"region at {zoomed}"]),
            *(f"without region {place}" for place in self._without(record)),
        )

    def _compute(self, record: Record, views: int, zoomed: int | None) -> dict[str, Tensor]:
        """One image through views, regions and the frozen part of the tower."""
        pixels, mask, image_hash = pixels_of(record, self.tower.tower.preprocess, self.cache)
        return self._prepared(pixels, mask, image_hash, views, zoomed, self._without(record))

    def _black(self, views: int, zoomed: int | None) -> dict[str, Tensor]:
        """A black image, for the shapes of a part that has no image."""
        side = self.tower.tower.preprocess.size
        black = torch.zeros(3, side, side, dtype=torch.uint8)
        return self._prepared(black, None, "", views, zoomed)

    @torch.no_grad()
    def _prepared(
        self,
        pixels: Tensor,
        mask: Tensor | None,
        image_hash: str,
        views: int,
        zoomed: int | None,
        without: Sequence[int] = (),
    ) -> dict[str, Tensor]:
        regions = extract(self.method, pixels, mask, self.region_count)
        regions = regions[[place for place in range(len(regions)) if place not in without]]
        view_pixels, view_regions = make_views(pixels, regions, views, image_hash, zoomed)
        region_weights, valid = to_grid(view_regions, self.tower.tower.grid, self.region_count)
        self.tower.eval()
        with autocast(self.device):
            hidden = self.tower.frozen(view_pixels.to(self.device), region_weights.to(self.device))
        hidden = hidden if hidden.dtype == torch.uint8 else hidden.half()
        return {
            "hidden": hidden.cpu().contiguous(),  # as the cache gives it: sums keep their order
            "weights": region_weights.half(),
            "valid": valid,
        }
