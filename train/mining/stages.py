"""The three steps over all photos, each from the files of the step before."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ovseg_demo.clip import MaskAdaptedCLIP, load_clip
from ovseg_demo.devices import choose_device, fast_dtype
from ovseg_demo.files import file_sha256
from train.core.files import write_bytes
from train.data.shards import Pair, cut_pair, shard_bytes
from train.data.sources import DataError, Photo, path_below
from train.mining.executor import ChunkTask, run_chunks
from train.mining.features import PhotoRegions, embed_chunk, noun_features, read_features
from train.mining.pairing import (
    Candidate,
    Lexicon,
    PhotoView,
    baseline_levels,
    match,
    nouns_of_photos,
    overlaps,
)
from train.mining.photos import photos_digest
from train.mining.proposals import PhotoProposals, propose_chunk, read_photo, read_proposals
from train.mining.settings import MineSettings
from train.mining.unlabeled_regions import UnlabeledRegion, select_unlabeled
from train.mining.work_folder import chunk_path, record_settings, recorded_setting


def propose_all(settings: MineSettings, photos: Sequence[Photo]) -> None:
    """First step: the masks of all photos within the limit, in whole chunks."""
    _record_proposal_settings(settings, photos)
    chunks = range(-(-settings.photo_count(photos) // settings.chunk))
    todo = [number for number in chunks if not _exists(settings, number)]
    _run(settings, "propose", partial(_propose_task, settings, photos), todo)


def _record_proposal_settings(settings: MineSettings, photos: Sequence[Photo]) -> None:
    how = asdict(settings.proposal_settings())
    record_settings(
        settings.proposals_folder, {**how, "photos": photos_digest(photos), "chunk": settings.chunk}
    )


def _propose_task(settings: MineSettings, photos: Sequence[Photo]) -> ChunkTask:
    how = settings.proposal_settings()
    proposer = how.load(choose_device(settings.device))

    def task(number: int) -> dict[str, int]:
        path = chunk_path(settings.proposals_folder, number, ".npz")
        return propose_chunk(settings.chunk_of(photos, number), path, proposer, how)

    return task


def count_proposed(settings: MineSettings, photos: Sequence[Photo]) -> int:
    """Number of photos within the limit that have proposals, up to the first that has none.

    Raises:
        DataError: the first photo has none.
        ResumeError: they are of other photos or were made with other settings.
    """
    count, wanted = 0, settings.photo_count(photos)
    while count * settings.chunk < wanted and _exists(settings, count):
        count += 1
    if count == 0:
        raise DataError(f"{settings.proposals_folder} holds no proposals yet: run --stage propose first.")
    _record_proposal_settings(settings, photos)
    return min(wanted, count * settings.chunk)


def _exists(settings: MineSettings, number: int) -> bool:
    return chunk_path(settings.proposals_folder, number, ".npz").exists()


@dataclass(frozen=True)
class Matcher:
    """The CLIP that matches, and the folder of its features."""

    clip: MaskAdaptedCLIP
    digest: str
    folder: Path


def load_matcher(settings: MineSettings) -> Matcher:
    """Load the CLIP; every checkpoint has a folder of features of its own."""
    clip = _load(settings)
    digest = clip.weights_sha256 or file_sha256(Path(settings.model) / f"{settings.weights}.safetensors")
    return Matcher(clip, digest, settings.work / f"features_{digest[:12]}")


def _load(settings: MineSettings) -> MaskAdaptedCLIP:
    device = torch.device(choose_device(settings.device))
    clip = load_clip(settings.model, weights=settings.weights, device=device)
    return clip.compute_in(fast_dtype(device))


def embed_all(settings: MineSettings, photos: Sequence[Photo], count: int, matcher: Matcher) -> None:
    """Second step: the features of the regions of the first `count` photos."""
    how = {**asdict(settings.region_filter()), **asdict(settings.proposal_settings())}
    record_settings(
        matcher.folder,
        {**how, "model": matcher.digest, "photos": photos_digest(photos), "chunk": settings.chunk},
    )
    chunks = range(-(-count // settings.chunk))
    todo = [number for number in chunks if not chunk_path(matcher.folder, number, ".npz").exists()]
    _run(settings, "embed", partial(_embed_task, settings, photos, matcher.folder), todo)


def _embed_task(settings: MineSettings, photos: Sequence[Photo], folder: Path) -> ChunkTask:
    clip = _load(settings)

    def task(number: int) -> dict[str, int]:
        proposals = read_proposals(chunk_path(settings.proposals_folder, number, ".npz"))
        some = settings.chunk_of(photos, number)
        path = chunk_path(folder, number, ".npz")
        return embed_chunk(some, proposals, path, clip, settings.region_filter(), settings.max_side_px)

    return task


def read_nouns(settings: MineSettings, photos: Sequence[Photo]) -> tuple[list[list[str]], list[str]]:
    """The nouns of every photo, and all of them, the most frequent first; kept in the out folder."""
    path = settings.out / "nouns.json"
    if not path.is_file():
        captions = [photo.captions[: settings.captions_per_photo] for photo in photos]
        labels = [photo.names for photo in photos]
        of_photo, frequency = nouns_of_photos(captions, settings.least_photos, labels)
        ordered = sorted(frequency, key=lambda noun: (-frequency[noun], noun))
        write_bytes(path, json.dumps({"photos": of_photo, "nouns": ordered}).encode())
    content = json.loads(path.read_text("utf-8"))
    return content["photos"], content["nouns"]


def pair_all(settings: MineSettings, photos: Sequence[Photo], count: int, matcher: Matcher) -> None:
    """Third step: pairs of the first `count` photos, written as shards."""
    # The reference photos stay the same when more photos are mined.
    baseline_photos = min(
        settings.baseline_photos, int(recorded_setting(settings.out, "baseline_photos") or count)
    )
    words = {"captions_per_photo": settings.captions_per_photo, "least_photos": settings.least_photos}
    bank = {
        "bank_size": settings.bank_size,
        "most_alike": settings.most_alike,
        "baseline_photos": baseline_photos if settings.confidence == "contrast" else 0,
    }
    about = {"model": matcher.digest, "photos": photos_digest(photos), "templates": settings.templates}
    written = {"image_format": settings.image_format, "shard_photos": settings.chunk * settings.shard_chunks}
    filters = asdict(settings.region_filter()) | asdict(settings.proposal_settings())
    rest = {"unlabeled_regions": settings.unlabeled_regions} if settings.unlabeled_regions else {}
    how = {**about, **words, **bank, **written, **filters, **asdict(settings.rules()), **rest}
    record_settings(settings.out, how, "--out")
    nouns, ordered = read_nouns(settings, photos)
    vectors = noun_features(matcher.clip, ordered, settings.templates, matcher.folder)
    lexicon = Lexicon(
        tuple(ordered), vectors, matcher.clip.score_scale, settings.bank_size, settings.most_alike
    )
    if settings.confidence == "contrast":
        some = list(views_of(settings, matcher.folder, range(baseline_photos)))
        baseline = baseline_levels(
            [view for *_, view in some], nouns[:baseline_photos], lexicon, settings.rules()
        )
        lexicon = replace(lexicon, baseline=baseline)
    shards = range(-(-count // (settings.chunk * settings.shard_chunks)))
    todo = [number for number in shards if not _shard_is_done(settings, number, count)]
    make = partial(_pair_task, settings, photos, count, matcher.folder, nouns, lexicon)
    _run(settings, "pair", make, todo)


def shard_range(settings: MineSettings, number: int, count: int) -> range:
    """Which of the first `count` photos belong to a shard."""
    size = settings.chunk * settings.shard_chunks
    return range(number * size, min((number + 1) * size, count))


def shard_paths(settings: MineSettings, number: int) -> tuple[Path, Path]:
    """The tar file of a shard and the record of what is in it."""
    return settings.out / f"pairs_{number:06d}.tar", settings.out / f"pairs_{number:06d}.json"


def unlabeled_path(settings: MineSettings, number: int) -> Path:
    """The tar file of the regions without a noun."""
    return settings.out / f"unlabeled_{number:06d}.tar"


def _shard_is_done(settings: MineSettings, number: int, count: int) -> bool:
    """Whether it exists and covers all photos that have features."""
    tar, record = shard_paths(settings, number)
    if not (tar.is_file() and record.is_file()):
        return False
    content = json.loads(record.read_text("utf-8"))
    files = {tar: content["sha256"]}
    if settings.unlabeled_regions:
        files[unlabeled_path(settings, number)] = content["unlabeled_sha256"]
    return content["photos"] == len(shard_range(settings, number, count)) and all(
        path.is_file() and file_sha256(path) == digest for path, digest in files.items()
    )


def _pair_task(
    settings: MineSettings,
    photos: Sequence[Photo],
    count: int,
    features: Path,
    nouns: Sequence[Sequence[str]],
    lexicon: Lexicon,
) -> ChunkTask:
    rules = settings.rules()

    def task(number: int) -> dict[str, int]:
        counts: Counter[str] = Counter(photos=0, unreadable=0, without_noun=0, without_region=0, offered=0)
        pairs: list[Pair] = []
        unlabeled: list[Pair] = []
        unreadable: list[dict[str, str]] = []
        members = shard_range(settings, number, count)
        for place, (proposals, found, view) in zip(
            members, views_of(settings, features, members), strict=True
        ):
            counts["photos"] += 1
            counts["unreadable"] += bool(proposals.error)
            counts["without_noun"] += not nouns[place]
            counts["without_region"] += not len(found.index)
            counts["offered"] += len(nouns[place])
            if proposals.error:
                unreadable.append({"photo": proposals.photo, "error": proposals.error})
            chosen = match(view, nouns[place], lexicon, rules)
            rest: list[UnlabeledRegion] = []
            if settings.unlabeled_regions and photos[place].captions:
                taken = {candidate.region for candidate in chosen}
                what = settings.unlabeled_rules()
                rest = select_unlabeled(view, nouns[place], lexicon, taken, what, proposals.photo)
            if chosen or rest:
                image = read_photo(photos[place], settings.max_side_px)
                where = path_below(photos[place].path, settings.data)
                pairs += [cut_out(image, proposals, found, one, where) for one in chosen]
                unlabeled += [cut_out(image, proposals, found, one, where) for one in rest]
        counts["pairs"] = len(pairs)
        tar, record = shard_paths(settings, number)
        write_bytes(tar, shard_bytes(pairs, name=tar.stem, image_format=settings.image_format))
        said: dict[str, Any] = {**counts, "name": tar.name, "sha256": file_sha256(tar), "skipped": unreadable}
        if settings.unlabeled_regions:
            path = unlabeled_path(settings, number)
            write_bytes(path, shard_bytes(unlabeled, name=path.stem, image_format=settings.image_format))
            said |= {"unlabeled": len(unlabeled), "unlabeled_sha256": file_sha256(path)}
        said["nouns"] = dict(Counter(pair.facts.noun for pair in pairs).most_common())
        write_bytes(record, json.dumps(said, indent=1).encode())
        return dict(counts)

    return task


def views_of(
    settings: MineSettings, features: Path, places: range
) -> Iterator[tuple[PhotoProposals, PhotoRegions, PhotoView]]:
    """Results of the first two steps for photos `places`, a range that begins with a chunk."""
    for chunk in range(places.start // settings.chunk, -(-places.stop // settings.chunk)):
        proposals = read_proposals(chunk_path(settings.proposals_folder, chunk, ".npz"))
        regions = read_features(chunk_path(features, chunk, ".npz"))
        for row, (masks, found) in enumerate(zip(proposals, regions, strict=True)):
            if chunk * settings.chunk + row >= places.stop:
                return
            usable = masks.masks[found.index]
            area = usable.sum(axis=(1, 2)) / max(1, int(np.prod(usable.shape[1:])))
            yield (
                masks,
                found,
                PhotoView(
                    found.features, area.astype(np.float32), masks.quality[found.index], overlaps(usable)
                ),
            )


def cut_out(
    image: NDArray[np.uint8],
    proposals: PhotoProposals,
    regions: PhotoRegions,
    chosen: Candidate | UnlabeledRegion,
    photo_path: str = "",
) -> Pair:
    """A region of a photo with its pixels, and its noun or its candidate nouns."""
    k = int(regions.index[chosen.region])
    quality, photo = float(proposals.quality[k]), proposals.photo
    if isinstance(chosen, UnlabeledRegion):
        facts: dict[str, Any] = {"noun": "", "score": 0.0, "cosine": 0.0, "margin": 0.0}
        facts["candidate_nouns"] = chosen.candidate_nouns
    else:
        facts = {"noun": chosen.noun, "score": chosen.confidence}
        facts |= {"cosine": chosen.cosine, "margin": chosen.margin}
    return cut_pair(image, proposals.masks[k], photo=photo, quality=quality, photo_path=photo_path, **facts)


def _run(settings: MineSettings, name: str, make: partial[ChunkTask], todo: list[int]) -> None:
    log = settings.work / "mine.log"
    run_chunks(make, todo, engine=settings.engine, workers=settings.workers, name=name, log=log)
