"""The classifier of one arm: features of regions and of words, and their scores."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import cast

import numpy as np
from numpy.typing import NDArray

from ovseg_demo.caching.text_cache import TextCache
from ovseg_demo.clip import MaskAdaptedCLIP, RegionCache
from ovseg_demo.clip.text import Templates
from ovseg_demo.clip.towers import ClipTextTower
from ovseg_demo.memory.evidence import MemorySettings
from ovseg_demo.merging import MergeSettings, Scores, probabilities
from ovseg_demo.merging.published_rules import OTHERS
from ovseg_demo.naming.hidden_names import competing_names, hidden_names
from ovseg_demo.naming.part_names import parts_of
from ovseg_demo.proposals import Proposals
from ovseg_demo.proposals.queries import QUERY_SCALE, Queries
from ovseg_demo.result import Arm
from ovseg_demo.vocabulary import Vocabulary

Features = NDArray[np.float32]


@dataclass(frozen=True)
class PhotoFeatures:
    """Features of one arm for a photo; they do not depend on the words.

    Attributes:
        regions: (R, D) unit vectors, one per proposal.
        photo: (D,) unit vector of the whole photo.
        timings: seconds for "crop" and "embed".
    """

    regions: Features
    photo: Features
    timings: Mapping[str, float]


@dataclass
class PhotoAnalysis:
    """What is computed once for a photo: its proposals, and per arm the features of its regions."""

    image: NDArray[np.uint8]
    """(H, W, 3) as read."""
    working: NDArray[np.uint8]
    """(h, w, 3) at the working size."""
    proposals: Proposals
    features: dict[Arm, PhotoFeatures] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    cache: RegionCache = field(default_factory=RegionCache)
    """What arms have in common of the regions and the whole photo."""
    key: str = ""
    """Differs from photo to photo; "" for one that is not kept."""


class Classifier:
    """One arm of a CLIP. Names that were embedded once are kept.

    Args:
        clip: the arm.
        texts: where features of names are kept; may be shared with other arms.
    """

    MOST_ALIKE = 0.75
    """A hidden name whose text feature is closer than this to a typed one's does not compete with it."""

    NAMES_AT_ONCE = 64
    """Batch size of new names; each batch is cached before the next."""

    def __init__(self, clip: MaskAdaptedCLIP, texts: TextCache | None = None) -> None:
        self.clip = clip
        # Without a key, features of different towers could not be told apart.
        self._texts = texts if texts is not None and clip.text_key else TextCache(None)
        self.merge_settings = MergeSettings.of(clip.calibration)
        self.memory_settings = MemorySettings()
        self._known = {key: feature.cpu().numpy() for key, feature in clip.known_names.items()}

    def embed(
        self, image: NDArray[np.uint8], proposals: Proposals, cache: RegionCache | None = None
    ) -> PhotoFeatures:
        """Embed every proposal of an image and the image as a whole.

        Args:
            image: (h, w, 3) uint8 at the working size.
            proposals: masks (R, h, w); R may be 0.
            cache: what other arms have computed of the same proposals; work that they have in common with
                this one is not done again.
        """
        start = time.perf_counter()
        cache = RegionCache() if cache is None else cache
        cut_before = cache.crop_seconds
        whole = np.ones((1, *image.shape[:2]), dtype=np.bool_)
        masks = np.concatenate([proposals.masks, whole])
        rows = self.clip.encode_photo_regions(image, masks, cache=cache).cpu().numpy()
        cut = cache.crop_seconds - cut_before
        return PhotoFeatures(rows[:-1], rows[-1], {"crop": cut, "embed": time.perf_counter() - start - cut})

    def text(self, names: Sequence[str], templates: str) -> Features:
        """(n, D) unit vectors of names."""
        key, asked = self.clip.text_key, dict.fromkeys(names)
        found = {name: self._known[name, templates] for name in asked if (name, templates) in self._known}
        found |= self._texts.read(key, templates, [name for name in asked if name not in found])
        missing = [name for name in asked if name not in found]
        for start in range(0, len(missing), self.NAMES_AT_ONCE):
            some = missing[start : start + self.NAMES_AT_ONCE]
            rows = self.clip.encode_text(some, cast(Templates, templates)).cpu().numpy()
            features = dict(zip(some, rows, strict=True))
            self._texts.write(key, templates, features)
            found |= features
        return np.stack([found[name] for name in names])

    def score(
        self,
        features: PhotoFeatures,
        vocabulary: Vocabulary,
        templates: str,
        queries: Queries | None = None,
        *,
        with_hidden: bool = True,
    ) -> Scores:
        """Compare regions and photo with the typed and the hidden names; a class is its best synonym.

        Args:
            features: from `embed`.
            vocabulary: the typed names.
            templates: sentences around a name.
            queries: of a segmenter, which are compared with the names too if they live in this model's space.
            with_hidden: False leaves the hidden names and those of parts out, which the published rules do
                not use and a large text tower takes minutes to embed.
        """
        typed = self.text(vocabulary.prompts, templates)
        names = hidden_names() if with_hidden else ()
        hidden = self.text([*names, OTHERS], templates)
        hidden, others = hidden[:-1], hidden[-1]
        competing = competing_names(vocabulary.prompts, typed, names, hidden, self.MOST_ALIKE)
        hidden, hidden_kept = hidden[competing], tuple(compress(names, competing))
        part_names, wholes = parts_of(vocabulary) if with_hidden else ((), np.zeros((0, 0), dtype=np.bool_))
        # One sentence a name is enough to compare parts with typed names.
        parts = self.text(part_names, "single") if part_names else np.zeros((0, typed.shape[1]), np.float32)
        compared = (*vocabulary.prompts, *hidden_kept, *part_names)
        text = np.concatenate([typed, hidden, parts])
        logits = self.clip.region_logits(features.regions, text, compared)
        of_typed, of_hidden, of_parts = np.split(logits, np.cumsum([len(typed), len(hidden)]), axis=1)
        # Known regions are parts of photos: they do not vote for the photo as a whole.
        photo = features.photo[None]
        return Scores(
            typed=_best_synonyms(of_typed, vocabulary),
            hidden=of_hidden,
            photo_typed=_best_synonyms(self.clip.logits(photo, typed), vocabulary)[0],
            photo_hidden=self.clip.logits(photo, hidden)[0],
            others=self.clip.logits(features.regions, others[None])[:, 0],
            queries=self._name_queries(queries, typed, others, vocabulary),
            hidden_names=hidden_kept,
            parts=of_parts,
            wholes=wholes,
        )

    def rank(self, regions: Features, names: Sequence[str], templates: str) -> Features:
        """(R, N) probabilities of names against each other, which add up to one for each of R regions."""
        logits = self.clip.region_logits(regions, self.text(names, templates), names)
        return probabilities(logits, np.zeros((len(logits), 0), dtype=np.float32))

    def _name_queries(
        self, queries: Queries | None, typed: Features, others: Features, vocabulary: Vocabulary
    ) -> Features | None:
        """Logits of a segmenter's queries, see `Scores.queries`; None if they live in another text space."""
        alike = isinstance(self.clip.text_tower, ClipTextTower)  # published queries live in CLIP's space
        if queries is None or not alike or queries.embeddings.shape[1] != self.clip.embed_dim:
            return None
        points = queries.embeddings / np.linalg.norm(queries.embeddings, axis=1, keepdims=True)
        per_class = _best_synonyms(points @ typed.T, vocabulary)
        rest = points @ np.stack([others, queries.no_object], axis=1)
        return np.asarray(QUERY_SCALE * np.concatenate([per_class, rest], axis=1), dtype=np.float32)


def _best_synonyms(scores: Features, vocabulary: Vocabulary) -> Features:
    """(n, prompts) -> (n, C), each class with the score of its best name."""
    per_class = np.full((len(scores), len(vocabulary)), -np.inf, dtype=np.float32)
    np.maximum.at(per_class.T, np.asarray(vocabulary.owners), scores.T)
    return per_class
