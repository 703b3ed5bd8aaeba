"""The words of the training photos as MiniLM vectors, computed once and kept."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from ovseg_demo.clip.minilm import MiniTextTower
from ovseg_demo.devices import fast_dtype
from train.core.files import write_tensors
from train.data.everyday_names import everyday_names
from train.data.sources import Photo
from train.mining.nouns import caption_nouns


@dataclass(frozen=True)
class TextBank:
    """Sentences and names with their vectors, and which photo they belong to.

    Attributes:
        captions: (S, 384) float32 sentence vectors.
        caption_rows: per photo, rows of `captions`.
        names: the nouns, labels and tags kept, after the classes and their everyday names.
        name_vectors: (T, M, 384) float32, of each name alone and in the sentences of `WORDINGS`.
        photo_names: per photo, {row of `names`: weight}; weights sum to 1 where there is any.
        class_names: (1000, M) float32, how each class of the classifier is called: half is its own name,
            half its everyday names; rows sum to 1.
    """

    captions: Tensor
    caption_rows: list[list[int]]
    names: list[str]
    name_vectors: Tensor
    photo_names: list[dict[int, float]]
    class_names: Tensor


WORDINGS = ("{}", "a photo of a {}.", "There is a {} in the scene")
"""How a name may be worded in training, so that the tower does not depend on one sentence."""


def cached_vectors(sentences: Sequence[str], folder: Path) -> Tensor:
    """MiniLM vectors (n, 384) of the sentences, read from `folder` where it has exactly these."""
    digest = hashlib.sha256("\n".join(sentences).encode()).hexdigest()[:16]
    path = folder / f"sentences_{digest}.safetensors"
    if not path.is_file():
        dtype = fast_dtype(torch.device("cpu"))
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            vectors = MiniTextTower().sentence_vectors(sentences)
        write_tensors(path, {"vectors": vectors})
    return load_file(path)["vectors"]


def build_text_bank(
    photos: Sequence[Photo], classes: Sequence[str], folder: Path, *, least: int = 3
) -> TextBank:
    """Collect captions and names of the photos.

    Args:
        photos: the training photos.
        classes: the 1,000 names of the trunk's classifier, in its order.
        folder: where vectors are kept.
        least: a noun of a caption counts when at least so many photos have it.
    """
    sentences: list[str] = []
    caption_rows: list[list[int]] = []
    counted: list[Counter[str]] = []
    for photo in photos:
        caption_rows.append(list(range(len(sentences), len(sentences) + len(photo.captions))))
        sentences += photo.captions
        nouns: Counter[str] = Counter()
        for caption in photo.captions:
            nouns.update(set(caption_nouns(caption)))
        for name in photo.names:
            nouns[name] += max(len(photo.captions), 1)
        counted.append(nouns)
    photo_count = Counter(name for nouns in counted for name in nouns)
    labels = {name for photo in photos for name in photo.names}
    extra = sorted(
        n for n, count in photo_count.items() if (count >= least or n in labels) and n not in set(classes)
    )
    everyday = everyday_names(classes)
    more = sorted({word for words in everyday for word in words} - {*classes, *extra})
    names = [*classes, *more, *extra]
    row = {name: i for i, name in reversed(list(enumerate(names)))}
    photo_names = []
    for nouns in counted:
        # A frequent noun is less informative: its weight falls with the root of the number of photos that
        # have it.
        weights = {row[n]: c / photo_count[n] ** 0.5 for n, c in nouns.items() if n in row}
        total = sum(weights.values())
        photo_names.append({i: weight / total for i, weight in weights.items()})
    class_names = torch.zeros(len(classes), len(names))
    for number, words in enumerate(everyday):
        class_names[number, number] += 0.5
        for word in words:
            class_names[number, row[word]] += 0.5 / len(words)
    return TextBank(
        captions=cached_vectors(sentences, folder),
        caption_rows=caption_rows,
        names=names,
        name_vectors=torch.stack(
            [cached_vectors([wording.format(name) for name in names], folder) for wording in WORDINGS]
        ),
        photo_names=photo_names,
        class_names=class_names,
    )
