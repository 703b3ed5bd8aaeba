"""Photos that calibrate the default rule: questions, scores and truth, with features kept on disk.

Embedding takes minutes and happens once per arm; a file of features belongs to the hashes of all its weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ovseg_demo.merging import Scores
from ovseg_demo.naming.classifier import Classifier, PhotoFeatures
from ovseg_demo.proposals import Proposals
from ovseg_demo.vocabulary import Vocabulary
from train.core.files import write_bytes
from train.data.named_regions import NamedPhoto
from train.data.truth import TruthSet
from train.evaluation.absent_words import AbsentWordsSettings, Question
from train.evaluation.free_words import Truth, first_names, make_free_question, stored_proposals

MIXES = ((10, 5), (3, 3), (1, 2), (5, 12))
"""Names that are there and names that are not, of the questions that each photo is asked."""
LONG_MIXES = ((10, 20), (5, 25), (10, 70))
"""The same for lists that are longer than people type."""
STRIDE = 2
"""Of the pixels that are looked at when rules are compared."""
LONG_LIST = "long list"


@dataclass(frozen=True)
class Example:
    """One question about one photo under one arm.

    Attributes:
        kind: "10 + 5" and so on, or LONG_LIST.
        photo: name of the photo.
        scores: of the names asked for, in the order of `present`.
        proposals: at every STRIDE-th pixel.
        truth: which names are right in which region; None for long lists.
        named: (R,) bool, regions whose names are known.
        present: (C,) bool.
        known: (C,) bool, names of which it is known whether they are there.
    """

    kind: str
    photo: str
    scores: Scores
    proposals: Proposals
    truth: Truth | None
    named: NDArray[np.bool_]
    present: NDArray[np.bool_]
    known: NDArray[np.bool_]


def photo_features(
    classifier: Classifier, photo: NamedPhoto, proposals: Proposals | None, folder: Path | None
) -> PhotoFeatures:
    """The features of a photo's regions and of the photo, from the folder if they are there.

    Args:
        classifier: the arm.
        photo: its file is read only if there are no features yet.
        proposals: its stored ones; None = they are read if they are needed.
        folder: where features are kept; None = nowhere.
    """
    weights = classifier.clip.weights_id
    key = hashlib.sha256(f"{weights} {photo.name}".encode()).hexdigest()[:32]
    path = None if folder is None or not weights else folder / f"{key}.npy"
    if path is not None and path.is_file():
        rows = np.load(path, allow_pickle=False).astype(np.float32)
        if len(rows) == len(photo.regions) + 1:
            return PhotoFeatures(rows[:-1], rows[-1], {})
    found = classifier.embed(photo.read(), stored_proposals(photo) if proposals is None else proposals)
    if path is not None:
        with_photo = np.concatenate([found.regions, found.photo[None]]).astype(np.float16)
        write_bytes(path, _npy(with_photo))
    return found


def _npy(values: NDArray[np.float16]) -> bytes:
    from io import BytesIO

    buffer = BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def subsampled(proposals: Proposals) -> Proposals:
    """The same regions at every STRIDE-th pixel; small ones may be left without a pixel."""
    masks = np.ascontiguousarray(proposals.masks[:, ::STRIDE, ::STRIDE])
    boxes = proposals.boxes.copy()
    boxes[:, :2] //= STRIDE
    boxes[:, 2:] = -(-boxes[:, 2:] // STRIDE)
    return Proposals(masks, proposals.quality, boxes)


def examples_of(
    classifier: Classifier,
    photos: Sequence[NamedPhoto],
    others: Sequence[NamedPhoto],
    long_lists: TruthSet,
    *,
    mixes: Sequence[tuple[int, int]] = MIXES,
    folder: Path | None = None,
    templates: str = "vild",
    seed: int = 0,
    title: str = "",
) -> list[Example]:
    """Ask every photo all its questions.

    Args:
        classifier: the arm.
        photos: of fold 0.
        others: photos whose names are asked for where they are absent.
        long_lists: instances with complete names for some of the photos, which are asked for all of them.
        mixes: names that are there and names that are not, of each question.
        folder: keeps features between runs.
        templates: sentences around a name.
        seed: of the questions.
        title: of the progress bar.
    """
    instances = {photo.path.name: photo for photo in long_lists.photos}
    found = []
    for photo in tqdm(photos, desc=title, disable=None):
        if not first_names(photo):
            continue
        proposals = stored_proposals(photo)
        features = photo_features(classifier, photo, proposals, folder)
        small = subsampled(proposals)
        named = np.array([bool(region.names) for region in photo.regions])
        for number, (present, absent) in enumerate(mixes):
            asked = make_free_question(photo, others, present=present, absent=absent, seed=seed + number)
            scores = classifier.score(features, Vocabulary.of(asked.asked), templates)
            truth = Truth.of(photo, proposals.masks, asked.asked)
            truth = Truth(truth.region_map[::STRIDE, ::STRIDE], truth.right)
            shown = np.array([name in asked.present for name in asked.asked])
            kind = f"{present} + {absent}"
            everything = np.ones(len(shown), dtype=np.bool_)
            found.append(Example(kind, photo.name, scores, small, truth, named, shown, everything))
        instance = instances.get(Path(photo.name).name) if photo.name.startswith("coco") else None
        if instance is not None:
            count = len(long_lists.classes)
            question = Question.everything(instance, count, AbsentWordsSettings.least_area)
            scores = classifier.score(features, Vocabulary.of(long_lists.classes), templates)
            shown, known = np.zeros(count, dtype=np.bool_), np.zeros(count, dtype=np.bool_)
            shown[list(question.present)] = True
            known[[*question.present, *question.absent]] = True
            found.append(Example(LONG_LIST, photo.name, scores, small, None, named, shown, known))
    return found
