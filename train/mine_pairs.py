"""Mine region-noun pairs from captions: the training data of a mask-adapted CLIP (the paper's section 3.2).

    python -m train.mine_pairs --model checkpoints/ovseg-mini --work runs/mine --out runs/pairs

Per photo: class-agnostic proposals; the nouns of its captions; CLIP (the vanilla arm) compares every region
with every noun; each noun goes to its best region, with a confidence, and what is too unsure is dropped.
Resumable: run the same command again; finished pieces are kept, and nothing is done twice.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

from train.core.files import write_bytes
from train.core.options import run_command
from train.data.contact_sheet import write_contact_sheet
from train.data.shards import write_manifest
from train.data.sources import Photo
from train.mining.precision import PrecisionSettings, precision
from train.mining.settings import MineSettings
from train.mining.stages import (
    Matcher,
    count_proposed,
    embed_all,
    load_matcher,
    pair_all,
    propose_all,
    shard_paths,
    shard_range,
    unlabeled_path,
)

COUNTS = ("photos", "unreadable", "without_noun", "without_region", "offered", "pairs")


def main(settings: MineSettings) -> None:
    """Run the steps that are not done yet."""
    photos = settings.photos()
    if settings.stage != "pairs":
        propose_all(settings, photos)
    if settings.stage == "propose":
        return
    count = count_proposed(settings, photos)
    matcher = load_matcher(settings)
    embed_all(settings, photos, count, matcher)
    pair_all(settings, photos, count, matcher)
    summary = summarise(settings, photos, count, matcher)
    write_contact_sheet(settings.out, settings.out / "contact_sheet.png", count=100, seed=settings.seed)
    print(summary)
    if (told := _precision(settings)) is not None:
        write_bytes(settings.out / "precision.txt", f"{told}\n".encode())
        print(told)


def _precision(settings: MineSettings) -> str | None:
    """How many pairs are right, where truth is at hand."""
    if settings.captions is not None and settings.truth is None:
        return None
    own = "coco_captions" in settings.sources and (settings.data / "coco_subset").is_dir()
    if settings.captions is None and not own:
        return None
    return precision(PrecisionSettings(settings.out, settings.data, instances=settings.truth))


def summarise(settings: MineSettings, photos: Sequence[Photo], count: int, matcher: Matcher) -> str:
    """Write the manifest; returns what it says in a few lines."""
    totals: Counter[str] = Counter()
    nouns: Counter[str] = Counter()
    shards, unlabeled, skipped = [], [], []
    number = 0
    while len(shard_range(settings, number, count)):
        record = json.loads(shard_paths(settings, number)[1].read_text("utf-8"))
        totals.update({name: record[name] for name in COUNTS})
        nouns.update(record["nouns"])
        skipped += record["skipped"]
        shards.append({name: record[name] for name in ("name", "photos", "pairs", "sha256")})
        if settings.unlabeled_regions:
            name = unlabeled_path(settings, number).name
            unlabeled.append(
                {"name": name, "regions": record["unlabeled"], "sha256": record["unlabeled_sha256"]}
            )
        number += 1
    write_manifest(
        settings.out,
        {
            "settings": json.loads((settings.out / "settings.json").read_text("utf-8")),
            "proposals": json.loads((settings.proposals_folder / "settings.json").read_text("utf-8")),
            "model": {"name": matcher.clip.name, "weights": settings.weights, "sha256": matcher.digest},
            "sources": dict(Counter(photo.source for photo in photos[:count])),
            "counts": {**totals, "different_nouns": len(nouns)},
            "skipped": skipped,
            "shards": shards,
            **({"unlabeled": unlabeled} if unlabeled else {}),
            "nouns": dict(nouns.most_common()),
        },
    )
    lines = [
        f"{totals['pairs']} pairs of {len(nouns)} nouns from {totals['photos']} photos"
        f" in {len(shards)} shards ({totals['offered']} nouns offered).",
        *([f"{sum(one['regions'] for one in unlabeled)} regions without a noun."] if unlabeled else []),
        *(f"skipped {one['photo']}: {one['error']}" for one in skipped[:10]),
    ]
    if len(skipped) > 10:
        lines.append(f"and {len(skipped) - 10} more photos that could not be read; the manifest lists them.")
    return "\n".join(lines)


if __name__ == "__main__":
    run_command(main, MineSettings, prog="train.mine_pairs")
