"""What teaching on a few dozen corrected regions changes elsewhere (`train/teach_figures.py`)."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ovseg_demo.clip import load_clip
from ovseg_demo.corrections.applying import at_size
from ovseg_demo.errors import CorrectionError
from ovseg_demo.imaging import resize_to_side
from ovseg_demo.naming.classifier import Classifier
from ovseg_demo.progress import run_to_end
from ovseg_demo.settings import Settings
from ovseg_demo.teaching import Lessons, TaughtPrompts, teach
from ovseg_demo.teaching.crops import PLACES, compared_text, frozen_part, other_places
from ovseg_demo.teaching.tuning import logits
from train.core.options import DEFAULT_DATA
from train.data.named_regions import HELD_OUT_FOLD, NamedPhoto, read_named_regions
from train.evaluation.memory import KINDS, LEAST_CLASSES

COMMON = 150
"""Most frequent names of fold 0, which compete beside the hidden ones where other names are judged."""


@dataclass(frozen=True)
class TeachFiguresSettings:
    """Top-1 on photos of a kind before and after teaching with some of them."""

    data: Path = DEFAULT_DATA
    """Folder that holds named_regions and the photos it names."""
    model: str = Settings.model
    """Name of the model table, or a folder that training wrote."""
    kinds: tuple[str, ...] = tuple(KINDS)
    """Which kinds of photos."""
    regions: int = 35
    """Photos are taken until so many regions are corrected; at most 50 regions."""
    draws: int = 1
    """How often photos are drawn for each kind."""
    judged: int = 150
    """Most regions of other photos that are judged, of the kind's names and of other names each."""
    seed: int = 0
    """Of the draws."""
    json: Path | None = None
    """Write the figures here as well."""


@dataclass(frozen=True)
class Crops:
    """What is frozen of some regions of a photo, and all their right names."""

    seen: Tensor
    token_masks: Tensor
    names: tuple[frozenset[str], ...]


@dataclass(frozen=True)
class Draw:
    """One teaching. Top-1 is in percent."""

    kind: str
    regions: int
    refused: str
    """Why nothing was taught; "" if it was."""
    rest_before: float
    rest_after: float
    others_before: float
    others_after: float
    seconds: float
    """That teaching took, checks included, without the crops."""


@dataclass
class TeachBench:
    """The adapted arm on the photos of fold 0, whose crops are kept."""

    classifier: Classifier
    photos: Sequence[NamedPhoto]
    judged: int
    _kept: dict[str, tuple[Crops, Crops]] = field(default_factory=dict)

    def crops(self, photo: NamedPhoto) -> tuple[Crops, Crops]:
        """Its named regions, and other places of it."""
        if photo.name not in self._kept:
            image = resize_to_side(photo.read(), Settings.max_side_px)
            named = photo.named()
            masks = np.stack([at_size(region.mask(), image.shape[:2]) for region in named])
            others = other_places(masks, PLACES // 8)
            seen, kept = frozen_part(self.classifier.clip, image, np.concatenate([masks, others]))
            names = tuple(frozenset(region.names or ()) for region in named)
            count = len(named)
            self._kept[photo.name] = (
                Crops(seen[:count].half(), kept[:count], names),
                Crops(seen[count:].half(), kept[count:], len(others) * (frozenset(),)),
            )
        return self._kept[photo.name]

    def lessons(self, photos: Sequence[NamedPhoto], words: Sequence[str]) -> Lessons:
        """All regions of some photos that one of the words names, at most 50, as a person corrects them."""
        text, _ = compared_text(self.classifier, words, "vild")
        seen: list[Tensor] = []
        masks: list[Tensor] = []
        rows: list[int] = []
        numbers: list[int] = []
        for number, photo in enumerate(photos):
            named, others = self.crops(photo)
            for i, names in enumerate(named.names):
                own = [words.index(name) for name in words if name in names]
                if own and sum(row >= 0 for row in rows) < 50:
                    seen.append(named.seen[i : i + 1])
                    masks.append(named.token_masks[i : i + 1])
                    rows.append(own[0])
                    numbers.append(number)
            seen.append(others.seen)
            masks.append(others.token_masks)
            rows += [-1] * len(others.names)
            numbers += [number] * len(others.names)
        return Lessons(
            torch.cat(seen).float(),
            torch.cat(masks),
            torch.tensor(rows),
            text,
            tuple(words),
            torch.tensor(numbers),
        )

    def draw(self, kind: str, regions: int, seed: str) -> Draw:
        """Teach with some photos of a kind, and judge regions of the others."""
        words, rng = KINDS[kind], random.Random(seed)
        shown = {p.name: {n for r in p.named() for n in r.names or ()} & {*words} for p in self.photos}
        own = [p for p in self.photos if len(shown[p.name]) >= LEAST_CLASSES]
        rng.shuffle(own)
        chosen: list[NamedPhoto] = []
        count = 0
        while count < regions and len(own) > len(chosen) + 4:
            chosen.append(own[len(chosen)])
            count += sum(bool({*words} & {*(r.names or ())}) for r in chosen[-1].named())
        lessons = self.lessons(chosen, words)
        names = Counter(name for p in self.photos for r in p.named() for name in (r.names or ())[:1])
        rest = [p for p in self.photos if p not in chosen]
        rng.shuffle(rest)
        of_kind = self.some(rest, lambda own: bool(own & {*words}))
        others = self.some(rest, lambda own: not own & {*words})
        before: Tensor = self.classifier.clip.image_tower.prompts.mask_embedding  # type: ignore[union-attr]
        began, refused, after = time.perf_counter(), "", before
        try:
            taught: TaughtPrompts = run_to_end(teach(self.classifier, lessons))
            after = torch.from_numpy(taught.prompts)
        except CorrectionError as error:
            refused = str(error)
        seconds = time.perf_counter() - began
        longer = [*words, *(name for name, _ in names.most_common(COMMON) if name not in words)]
        return Draw(
            kind,
            lessons.regions,
            refused,
            self.top1(of_kind, words, before),
            self.top1(of_kind, words, after),
            self.top1(others, longer, before),
            self.top1(others, longer, after),
            seconds,
        )

    def some(self, photos: Sequence[NamedPhoto], fits: Callable[[frozenset[str]], bool]) -> Crops:
        """Regions whose names fit, at most `judged`."""
        seen: list[Tensor] = []
        masks: list[Tensor] = []
        names: list[frozenset[str]] = []
        for photo in photos:
            if len(names) >= self.judged:
                break
            if not any(fits(frozenset(region.names or ())) for region in photo.named()):
                continue
            crops, _ = self.crops(photo)
            for i, own in enumerate(crops.names):
                if fits(own) and len(names) < self.judged:
                    seen.append(crops.seen[i])
                    masks.append(crops.token_masks[i])
                    names.append(own)
        return Crops(torch.stack(seen), torch.stack(masks), tuple(names))

    @torch.no_grad()
    def top1(self, crops: Crops, words: Sequence[str], prompts: Tensor) -> float:
        """Percent of regions whose best name among words and common names is right."""
        text, names = compared_text(self.classifier, words, "vild")
        nothing = torch.zeros(len(crops.names), dtype=torch.long)
        asked = Lessons(crops.seen.float(), crops.token_masks, nothing, text, tuple(words), nothing)
        best = logits(self.classifier.clip, asked, prompts).argmax(dim=1).tolist()
        return 100 * float(np.mean([names[k] in own for k, own in zip(best, crops.names, strict=True)]))


def measure_teaching(settings: TeachFiguresSettings) -> list[Draw]:
    """All draws of all kinds."""
    photos = [p for p in read_named_regions(settings.data, (HELD_OUT_FOLD,)) if p.named()]
    clip = load_clip(settings.model, weights="adapted")
    bench = TeachBench(Classifier(clip), photos, settings.judged)
    turns = [(kind, f"{settings.seed} {kind} {i}") for kind in settings.kinds for i in range(settings.draws)]
    return [bench.draw(kind, settings.regions, seed) for kind, seed in tqdm(turns, disable=None)]
