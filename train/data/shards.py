"""Region-noun pairs on disk: tar files that stream, and a manifest that says what they are.

A shard holds three files per pair, one after the other: `<key>.webp` (or png, jpg), the box around the region
cut out of the photo, background and all; `<key>.mask.png`, the region's real mask in it; `<key>.json`, facts.
Equal pairs give equal bytes, on every machine.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ovseg_demo.errors import ImageError
from ovseg_demo.files import file_sha256
from ovseg_demo.imaging import load_image
from train.core.files import write_bytes
from train.data.sources import DataError

ImageFormat = Literal["webp", "png", "jpeg"]
MANIFEST = "manifest.json"
_ENDINGS: dict[ImageFormat, str] = {"webp": ".webp", "png": ".png", "jpeg": ".jpg"}
_MASK = ".mask.png"
_OPTIONAL = ("candidate_nouns", "synonyms", "part_of", "photo_path")
"""Facts that are left out where they are empty; earlier shards have none of them."""


@dataclass(frozen=True)
class PairFacts:
    """What is known of a pair beside its pixels."""

    noun: str
    """What the region is thought to show; empty for a region that no noun was given to."""
    score: float
    """Confidence in 0..1."""
    cosine: float
    """Of region and noun."""
    margin: float
    """By how much the cosine exceeds that of the next best region that does not overlap."""
    photo: str
    """Id of the photo: source and name."""
    box: tuple[int, int, int, int]
    """Left, top, right, bottom in pixels of the photo as it was mined; right and bottom exclusive."""
    photo_size: tuple[int, int]
    """Height and width in pixels of the photo as it was mined."""
    area_fraction: float
    """Of the photo, 0..1."""
    quality: float
    """The proposer's own guess of its mask, 0..1."""
    candidate_nouns: tuple[str, ...] = ()
    """Of a region without a noun: those of its photo's nouns that it may show."""
    synonyms: tuple[str, ...] = ()
    """Other names that are right as well."""
    part_of: tuple[str, ...] = ()
    """What the region is a part of: neither right nor wrong as its name."""
    photo_path: str = ""
    """Of the photo below the data folder; empty where it lies elsewhere."""


@dataclass(frozen=True)
class Pair:
    """One training pair.

    Attributes:
        image: (h, w, 3) uint8, the box around the region, nothing blanked.
        mask: (h, w) bool, the region; it touches all four sides.
        facts: noun, score and where it comes from.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    facts: PairFacts


def cut_pair(
    image: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    *,
    noun: str,
    photo: str,
    score: float,
    cosine: float,
    margin: float,
    quality: float,
    candidate_nouns: Sequence[str] = (),
    synonyms: Sequence[str] = (),
    part_of: Sequence[str] = (),
    photo_path: str = "",
) -> Pair:
    """A region of a photo with its noun, cut out along its box.

    Args:
        image: (H, W, 3) uint8, the photo as it is mined.
        mask: (H, W) bool with at least one pixel.
        noun, photo, score, cosine, margin, quality, candidate_nouns, synonyms, part_of, photo_path: see
            PairFacts.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    left, top, right, bottom = (int(v) for v in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
    window = np.s_[top:bottom, left:right]
    facts = PairFacts(
        noun=noun,
        score=round(score, 5),
        cosine=round(cosine, 5),
        margin=round(margin, 5),
        photo=photo,
        box=(left, top, right, bottom),
        photo_size=(int(mask.shape[0]), int(mask.shape[1])),
        area_fraction=round(float(mask.mean()), 5),
        quality=round(quality, 4),
        candidate_nouns=tuple(candidate_nouns),
        synonyms=tuple(synonyms),
        part_of=tuple(part_of),
        photo_path=photo_path,
    )
    return Pair(np.ascontiguousarray(image[window]), mask[window].copy(), facts)


def shard_bytes(pairs: Iterable[Pair], *, name: str, image_format: ImageFormat = "webp") -> bytes:
    """A tar file of the pairs; `name` begins every key in it, so that keys differ among shards."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for number, pair in enumerate(pairs):
            key = f"{name}_{number:06d}"
            facts = {k: v for k, v in asdict(pair.facts).items() if v or k not in _OPTIONAL}
            _add(tar, key + _ENDINGS[image_format], _image_bytes(pair.image, image_format))
            _add(tar, key + _MASK, _mask_bytes(pair.mask))
            _add(tar, key + ".json", json.dumps(facts, sort_keys=True).encode())
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)  # time and owner stay zero: same pairs, same bytes
    entry.size = len(content)
    entry.mode = 0o644
    tar.addfile(entry, io.BytesIO(content))


def _image_bytes(image: NDArray[np.uint8], image_format: ImageFormat) -> bytes:
    buffer = io.BytesIO()
    picture = Image.fromarray(image)
    if image_format == "png":
        picture.save(buffer, "PNG")
    elif image_format == "webp":
        picture.save(buffer, "WEBP", quality=92, method=2)
    else:
        picture.save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def _mask_bytes(mask: NDArray[np.bool_]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG", optimize=False)
    return buffer.getvalue()


def read_shard(path: Path) -> Iterator[Pair]:
    """The pairs of one shard, in their order; none if it is empty.

    Raises:
        DataError: the file is missing or damaged, or a pair in it is incomplete.
    """
    try:
        with tarfile.open(path) as tar:
            parts: dict[str, bytes] = {}
            for entry in tar:
                key, _, ending = entry.name.partition(".")
                member = tar.extractfile(entry)
                parts[ending] = b"" if member is None else member.read()
                if ending == "json":
                    yield _pair(key, parts, path)
                    parts = {}
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(f"{path} cannot be read as a shard ({error}); mine it again.") from error
    if parts:
        raise DataError(f"{path} ends in the middle of a pair; mine it again.")


def _pair(key: str, parts: dict[str, bytes], path: Path) -> Pair:
    try:
        facts = json.loads(parts["json"])
        picture = next(parts[ending.removeprefix(".")] for ending in _ENDINGS.values() if ending[1:] in parts)
        mask = load_image(parts[_MASK.removeprefix(".")])[:, :, 0] > 0
        image = load_image(picture)
        # Earlier shards call it may_be.
        facts["candidate_nouns"] = facts.pop("may_be", facts.get("candidate_nouns", ()))
        lists = ("box", "photo_size", "candidate_nouns", "synonyms", "part_of")
        tuples = {key: tuple(facts[key]) for key in lists if key in facts}
        known = PairFacts(**{**facts, **tuples})
    except (KeyError, StopIteration, TypeError, ValueError, ImageError) as error:
        raise DataError(f"{path}: pair {key} is incomplete or damaged ({error}); mine it again.") from error
    if image.shape[:2] != mask.shape:
        raise DataError(f"{path}: pair {key} has a {image.shape[:2]} crop but a {mask.shape} mask.")
    return Pair(image, mask, known)


def write_manifest(folder: Path, content: dict[str, Any]) -> None:
    """Write manifest.json: settings, counts, and each shard's name, number of pairs and sha256."""
    write_bytes(folder / MANIFEST, json.dumps(content, indent=1).encode())


def write_shards(
    folder: Path,
    photos_pairs: Iterable[list[Pair]],
    *,
    per_shard: int,
    image_format: ImageFormat,
    about: dict[str, Any],
    photos: dict[str, int],
    skipped: list[dict[str, str]],
) -> dict[str, int]:
    """Write the pairs of photos as shards with their manifest; a photo is never split.

    Args:
        folder: for the shards.
        photos_pairs: the pairs of each photo.
        per_shard: pairs per shard, about.
        image_format: how crops are stored.
        about: further entries of the manifest.
        photos: number of photos by source.
        skipped: photos that could not be read; filled while `photos_pairs` is consumed.

    Returns:
        The manifest's counts: photos, unreadable, pairs, different_nouns.
    """
    nouns: Counter[str] = Counter()
    shards = []
    for number, pairs in enumerate(_portions(photos_pairs, per_shard)):
        path = folder / f"pairs_{number:06d}.tar"
        write_bytes(path, shard_bytes(pairs, name=path.stem, image_format=image_format))
        shards.append({"name": path.name, "pairs": len(pairs), "sha256": file_sha256(path)})
        nouns.update(pair.facts.noun for pair in pairs)
    counts = {
        "photos": sum(photos.values()),
        "unreadable": len(skipped),
        "pairs": nouns.total(),
        "different_nouns": len(nouns),
    }
    write_manifest(
        folder,
        {
            **about,
            "sources": photos,
            "counts": counts,
            "skipped": skipped,
            "shards": shards,
            "nouns": dict(nouns.most_common()),
        },
    )
    return counts


def _portions(photos_pairs: Iterable[list[Pair]], per_shard: int) -> Iterator[list[Pair]]:
    pairs: list[Pair] = []
    for some in photos_pairs:
        pairs += some
        if len(pairs) >= per_shard:
            yield pairs
            pairs = []
    if pairs:
        yield pairs


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a folder of shards.

    Raises:
        DataError: there is none, or it is not one.
    """
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_text("utf-8"))
        content["shards"]
    except OSError:
        raise DataError(f"{path} is missing: mine pairs first (python -m train.mine_pairs).") from None
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{path} is not a manifest of mined pairs; mine them again.") from None
    return dict(content)


def read_pairs(folder: Path) -> Iterator[Pair]:
    """The pairs of all shards of the manifest, in their order; empty shards are passed over.

    Raises:
        DataError: the manifest or a shard is missing, damaged or not the one of the manifest.
    """
    for shard in read_manifest(folder)["shards"]:
        path = folder / shard["name"]
        if not path.is_file():
            raise DataError(f"{path} is in the manifest but missing: mine it again.")
        if file_sha256(path) != shard["sha256"]:
            raise DataError(f"{path} is not the file of the manifest (its hash differs).")
        yield from read_shard(path)
