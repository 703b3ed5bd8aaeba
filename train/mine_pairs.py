"""Mine region-noun pairs from captions: the training data of a mask-adapted CLIP (the paper's section 3.2).

    python -m train.mine_pairs --sources coco_captions flickr8k --work runs/mine --stage propose

Resumable: run the same command again; finished chunks are kept, and nothing is done twice.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from train.data.sources import DataError, Photo
from train.mining.photos import file_photos, order_of, source_photos
from train.mining.proposals import ProposalSettings, propose_chunk
from train.mining.work import chunk_path, claim
from train.options import DEFAULT_DATA, run_command


@dataclass(frozen=True)
class MineSettings:
    """Mine region-noun pairs from captions (see train/README.md)."""

    work: Path = Path("runs/mine")
    """Folder for proposals, features and the log; a run goes on from what it holds."""
    stage: Literal["propose", "all"] = "all"
    """Only the proposals, or everything."""
    data: Path = DEFAULT_DATA
    """Folder that holds the data folders of --sources."""
    sources: tuple[str, ...] = ("coco_captions", "flickr8k")
    """Data folders to mine, one after the other, each in random order."""
    captions: Path | None = None
    """Captions file instead of --sources: COCO's JSON, or a CSV with the columns image and caption."""
    images: Path | None = None
    """Folder of the photos of --captions."""
    limit: int = 0
    """Mine only the first so many photos; 0 = all. More may be asked for later."""
    seed: int = 0
    """Seed of the photos' order."""
    chunk: int = 16
    """Photos per piece of work; a kill loses at most one piece."""
    proposer: str = "mobile-sam"
    """Who proposes masks."""
    proposal_size: int = 512
    """Longer side in pixels at which the proposer looks at a photo."""
    density: str = "low"
    """How many points are prompted: low, normal or high."""
    max_side_px: int = 640
    """Larger photos are made smaller first."""
    device: str = "cpu"
    """Where networks run: cpu, cuda or auto."""

    def proposal_settings(self) -> ProposalSettings:
        """The part that decides the masks."""
        return ProposalSettings(self.proposer, self.proposal_size, self.density, self.max_side_px)

    def photos(self) -> list[Photo]:
        """All photos to mine, in their order, without the limit.

        Raises:
            DataError: sources or captions are missing or malformed.
        """
        if self.captions is None:
            return source_photos(self.data, self.sources, self.seed)
        if self.images is None:
            raise DataError(f"--captions {self.captions} needs the folder of its photos: give --images.")
        return file_photos(self.captions, self.images, self.seed)


def propose_all(settings: MineSettings, photos: list[Photo]) -> None:
    """First step, over all photos within the limit."""
    folder = settings.work / "proposals"
    how = settings.proposal_settings()
    claim(folder, {**asdict(how), "photos": order_of(photos), "chunk": settings.chunk})
    wanted = photos[: settings.limit or None]
    chunks = [wanted[i : i + settings.chunk] for i in range(0, len(wanted), settings.chunk)]
    # A limit may cut the last chunk short; it is only written once it is whole, or the photos end there.
    if settings.limit and len(wanted) < len(photos) and len(chunks[-1]) < settings.chunk:
        first = (len(chunks) - 1) * settings.chunk
        chunks[-1] = photos[first : first + settings.chunk]
    todo = [n for n in range(len(chunks)) if not chunk_path(folder, n, ".npz").exists()]
    if not todo:
        return
    proposer = how.load(settings.device)
    with (settings.work / "propose.log").open("a") as log:
        for number in tqdm(todo, desc="propose", unit="chunk"):
            start = time.time()
            counts = propose_chunk(chunks[number], chunk_path(folder, number, ".npz"), proposer, how)
            said = " ".join(f"{name}={count}" for name, count in counts.items())
            log.write(
                f"{time.strftime('%H:%M:%S')} chunk={number} {said} seconds={time.time() - start:.1f}\n"
            )
            log.flush()


def main(settings: MineSettings) -> None:
    """Run the steps that are not done yet."""
    photos = settings.photos()
    propose_all(settings, photos)


if __name__ == "__main__":
    run_command(main, MineSettings, prog="train.mine_pairs")
