"""Keep the text features of common names beside the weights of an ovseg-mini, so that they cost nothing.

    python -m train.known_names

Beside the names of the presets these are names that regions were given (folds 1 to 9 of named_regions), those
first that the most captions mention. Features are kept for the text maps of every arm in the folder, as
float16; names that are not among them are embedded when they are asked for.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ovseg_demo.clip import load_clip
from ovseg_demo.errors import SettingsError
from ovseg_demo.vocabulary import fold
from train.core.options import DEFAULT_DATA, run_command
from train.data.named_regions import training_regions
from train.data.sources import coco_captions, flickr8k
from train.exporting.weights import preset_names, save_known_names
from train.mining.nouns import STOP_NOUNS

LONGEST_WORDS = 3
_WORD = re.compile(r"[a-z][a-z'-]*")


@dataclass(frozen=True)
class KnownNamesSettings:
    """Write the text features of common names beside the weights."""

    model: Path = Path("checkpoints/ovseg-mini")
    """Folder of an ovseg-mini; its names.safetensors is written anew."""
    data: Path = DEFAULT_DATA
    """Folder that holds named_regions, coco_captions and flickr8k."""
    names: int = 860
    """How many in all; a name takes 2.3 kB with the maps of three arms."""

    def __post_init__(self) -> None:
        if self.names < 1:
            raise SettingsError(f"--names must be at least 1, not {self.names}.")


def common_names(candidates: Iterable[str], captions: Iterable[str], count: int) -> list[str]:
    """The names that the most captions mention.

    Args:
        candidates: folded names of at most LONGEST_WORDS words, the more frequent ones first.
        captions: texts.
        count: at most so many.
    """
    wanted = dict.fromkeys(name for name in candidates if name not in STOP_NOUNS)
    mentions: Counter[str] = Counter()
    for caption in captions:
        words = _WORD.findall(caption.lower())
        mentions.update(_runs(words) & wanted.keys())
    return sorted(wanted, key=lambda name: -mentions[name])[:count]


def _runs(words: Sequence[str]) -> set[str]:
    """All runs of one to LONGEST_WORDS words."""
    return {
        " ".join(words[start:end])
        for start in range(len(words))
        for end in range(start + 1, min(start + LONGEST_WORDS, len(words)) + 1)
    }


def known_names(settings: KnownNamesSettings) -> None:
    """Choose the names, embed them for every arm and say how large the file is."""
    kept = preset_names()
    known = {fold(name) for name in kept}
    regions: Counter[str] = Counter()
    for photo in training_regions(settings.data):
        regions.update({fold(name) for region in photo.named() for name in region.names or ()} - known)
    photos = [*coco_captions(settings.data), *flickr8k(settings.data, ("train",))]
    captions = (caption for photo in photos for caption in photo.captions)
    candidates = (name for name, _ in regions.most_common())
    kept += common_names(candidates, captions, max(0, settings.names - len(kept)))
    arms = (
        arm for arm in ("vanilla", "adapted", "context") if (settings.model / f"{arm}.safetensors").is_file()
    )
    path = save_known_names(
        settings.model, *(load_clip(settings.model, weights=arm) for arm in arms), names=kept
    )
    print(f"{path}: {len(kept):,} names, {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    run_command(known_names, KnownNamesSettings, prog="train.known_names")
