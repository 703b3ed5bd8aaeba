"""First step: the class-agnostic masks of every photo, stored as bits."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovseg_demo.errors import ImageError
from ovseg_demo.imaging import resize_to_side
from ovseg_demo.proposals import Proposals, Proposer, load_proposer, propose
from train.core.files import write_bytes
from train.data.sources import Photo
from train.mining.photos import photo_id


@dataclass(frozen=True)
class ProposalSettings:
    """How the masks are made."""

    proposer: str = "mobile-sam"
    size: int = 512
    density: str = "low"
    max_side_px: int = 640
    """Longer side of the photo the masks belong to; larger photos are made smaller first."""

    def load(self, device: str) -> Proposer:
        """The proposer with its weights."""
        size = self.size if self.proposer == "mobile-sam" else None  # the others have a size of their own
        return load_proposer(self.proposer, device=device, size=size, density=self.density)


@dataclass(frozen=True)
class PhotoProposals:
    """The proposals of one photo, or the error that prevented them.

    Attributes:
        photo: its id.
        masks: (K, H, W) bool at the working size.
        quality: (K,) float32 in 0..1.
        error: of reading the photo; "" if there was none.
    """

    photo: str
    masks: NDArray[np.bool_]
    quality: NDArray[np.float32]
    error: str = ""


def read_photo(photo: Photo, max_side_px: int) -> NDArray[np.uint8]:
    """The photo at its working size, (H, W, 3) uint8.

    Raises:
        ImageError: it does not decode.
    """
    return resize_to_side(photo.read(), max_side_px)


def propose_chunk(
    photos: Sequence[Photo], path: Path, proposer: Proposer, settings: ProposalSettings
) -> dict[str, int]:
    """Propose masks for some photos and write them to `path`; returns counts for the log."""
    records: list[dict[str, Any]] = []
    arrays: dict[str, NDArray[Any]] = {}
    for row, photo in enumerate(photos):
        try:
            image = read_photo(photo, settings.max_side_px)
        except ImageError as error:
            records.append({"photo": photo_id(photo), "shape": [0, 0, 0], "error": str(error)})
            continue
        found: Proposals = propose(proposer, image)
        records.append({"photo": photo_id(photo), "shape": list(found.masks.shape), "error": ""})
        arrays[f"masks_{row}"] = np.packbits(found.masks)
        arrays[f"quality_{row}"] = found.quality.astype(np.float16)
    header = json.dumps({"settings": asdict(settings), "photos": records}).encode()
    buffer = io.BytesIO()
    arrays["header"] = np.frombuffer(header, np.uint8)
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    write_bytes(path, buffer.getvalue())
    return {
        "photos": len(photos),
        "unreadable": sum(bool(record["error"]) for record in records),
        "proposals": sum(record["shape"][0] for record in records),
    }


def read_proposals(path: Path) -> list[PhotoProposals]:
    """Read what `propose_chunk` wrote, photo by photo in the same order."""
    with np.load(path) as stored:
        header = json.loads(stored["header"].tobytes())
        found = []
        for row, record in enumerate(header["photos"]):
            shape = tuple(record["shape"])
            if record["error"] or shape[0] == 0:
                masks, quality = np.zeros(shape, np.bool_), np.zeros(0, np.float32)
            else:
                bits = np.unpackbits(stored[f"masks_{row}"], count=int(np.prod(shape)))
                masks = bits.astype(np.bool_).reshape(shape)
                quality = stored[f"quality_{row}"].astype(np.float32)
            found.append(PhotoProposals(record["photo"], masks, quality, record["error"]))
    return found
