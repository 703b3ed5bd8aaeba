"""What a person does with single regions of a photo: click one, name one, remember one, find its like.

Everything works on the kept analysis of the photo, so that after the first look a click costs a fraction of a
second.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TypeVar
from weakref import WeakKeyDictionary

import cv2
import numpy as np
from numpy.typing import NDArray

from ovseg_demo.analysis import ImageSource, PhotoAnalyser
from ovseg_demo.clip.text import Templates
from ovseg_demo.corrections import CorrectedRegion
from ovseg_demo.corrections.applying import at_size
from ovseg_demo.corrections.corrected_region import check_count, check_size
from ovseg_demo.errors import CorrectionError
from ovseg_demo.memory import Example, Memory, lacks_of, memory_evidence, thumbnail
from ovseg_demo.merging import Scores
from ovseg_demo.merging.evidence import log_odds
from ovseg_demo.models import TAUGHT, YOURS, arms_of, default_arm
from ovseg_demo.naming.classifier import Classifier, PhotoAnalysis, PhotoFeatures
from ovseg_demo.naming.hidden_names import hidden_names
from ovseg_demo.naming.ranked_names import RankedName, ranked_names
from ovseg_demo.progress import run_to_end
from ovseg_demo.proposals import Box, Point, Prompt, PromptedMasks, Proposals, promptable
from ovseg_demo.result import Arm
from ovseg_demo.teaching.prompts_file import TaughtPrompts
from ovseg_demo.vocabulary import Vocabulary, fold

T = TypeVar("T", bound="RegionTools")

MOST_KEPT = 8
"""Vocabularies and arms for which it is kept what the examples of a memory teach."""
MOST_MASKS = 64
"""Most masks that are named by one call."""


def example_arm(arm: Arm) -> Arm:
    """Whose features of examples an arm is compared with: prompts that are taught hardly move them."""
    return TAUGHT if arm == YOURS else arm


class RegionTools(PhotoAnalyser):
    """The part of a segmenter that works on single regions."""

    _taught: TaughtPrompts | None = None

    @cached_property
    def _lessons(self) -> WeakKeyDictionary[Memory, dict[Hashable, NDArray[np.float32]]]:
        return WeakKeyDictionary()

    def regions_at(
        self, image: ImageSource, points: Sequence[Point] = (), box: Box | None = None
    ) -> PromptedMasks:
        """The regions that clicks or a box may mean, the best first.

        Args:
            image: path, bytes, PIL picture or array.
            points: x, y in pixels of the photo, and whether the region holds the point.
            box: left, top, right, bottom in pixels of the photo; beside it points may be left out.

        Returns:
            Up to three masks at the photo's own size with their predicted quality.

        Raises:
            ImageError: the photo cannot be used.
            CorrectionError: nothing is clicked, a click lies outside the photo, or the box has no area.
            ProposalError: the proposer takes no clicks, or finds nothing there.
        """
        promptable(self.proposer)
        photo = self.analysed(image)
        height, width = photo.image.shape[:2]
        return self.prompt(photo, Prompt.of(points, box, width=width, height=height))

    def preview_at(self, pixels: NDArray[np.uint8], points: Sequence[Point]) -> PromptedMasks | None:
        """The regions that `regions_at` finds, if that takes no more than a decoding.

        Args:
            pixels: (H, W, 3) uint8, the photo.
            points: as in `regions_at`.

        Returns:
            None where the photo's encoding is not kept or the proposer takes no clicks.

        Raises:
            CorrectionError, ProposalError: as `regions_at`.
        """
        photo = self.kept_analysis(pixels)
        if photo is None or photo.proposals.embedding is None:
            return None
        height, width = pixels.shape[:2]
        return self.prompt(photo, Prompt.of(points, None, width=width, height=height))

    def name_masks(
        self,
        image: ImageSource,
        masks: Sequence[NDArray[np.bool_]],
        names: str | Iterable[str] | Vocabulary = (),
        arms: Sequence[Arm] | None = None,
        *,
        templates: Templates | None = None,
        memory: Memory | None = None,
    ) -> dict[Arm, tuple[tuple[RankedName, ...], ...]]:
        """What each arm takes masks for: the five best names of each, typed ones and common ones.

        Args:
            image: path, bytes, PIL picture or array.
            masks: (H, W) bool each, at the photo's own size, with at least one pixel.
            names: the words of the request; none = common names only.
            arms: all of the model if None.
            templates: sentences around a name; the settings' default if None.
            memory: examples that take part.

        Returns:
            For each arm one tuple a mask, in their order.

        Raises:
            ImageError, VocabularyError: the photo or the words cannot be used.
            CorrectionError: a mask has no pixel or another size, or the memory is of another model.
        """
        photo, limits = self.analysed(image), self.settings
        none_typed = not names if not isinstance(names, str) else not names.strip()
        vocabulary = Vocabulary.of(
            hidden_names() if none_typed else names,
            max_names=limits.max_names,
            max_name_length=limits.max_name_length,
        )
        regions = self._cut_out(photo, masks)
        ranked = {}
        for arm in self._own_arms(arms):
            classifier = self.classifier(arm)
            whole = self._features(photo, arm).photo
            features = PhotoFeatures(self.embed(regions, arm).regions, whole, {})
            scores = classifier.score(features, vocabulary, templates or limits.templates)
            chosen = templates or limits.templates
            scores = self.reminded(scores, features.regions, arm, vocabulary, chosen, memory)
            rows = ranked_names(scores, vocabulary.names, classifier.merge_settings)
            if none_typed:
                rows = tuple(tuple(replace(one, typed=False) for one in row) for row in rows)
            ranked[arm] = rows
        return ranked

    def remember(
        self,
        image: ImageSource,
        corrections: Sequence[CorrectedRegion],
        arms: Sequence[Arm] | None = None,
        *,
        memory: Memory | None = None,
    ) -> Memory:
        """Add the named ones of some corrections of a photo to a memory, as examples.

        Args:
            image: path, bytes, PIL picture or array.
            corrections: of this photo; those without a name are left out.
            arms: of a new memory; all of the model if None.
            memory: that is added to; None = a new one.

        Raises:
            ImageError: the photo cannot be used.
            CorrectionError: a mask is not of the photo's size, or the memory is full or of another model.
        """
        if memory is None:
            chosen = self._own_arms(arms)
            memory = Memory(self.model, {arm: self.weights_id(arm) for arm in chosen})
        else:
            for arm in memory.weights:
                memory.check(arm, self.weights_id(arm), self.model)
        named = [region for region in corrections if region.name is not None]
        check_count(len(named))
        if not named:
            return memory
        photo = self.analysed(image)
        masks = [region.mask for region in named]
        regions = self._cut_out(photo, masks)
        rows = {arm: self.embed(regions, arm).regions for arm in memory.weights}
        return memory.adding(
            Example(str(region.name), {arm: rows[arm][i] for arm in rows}, thumbnail(photo.image, masks[i]))
            for i, region in enumerate(named)
        )

    def more_like_this(
        self, image: ImageSource, mask: NDArray[np.bool_], arm: Arm | None = None
    ) -> tuple[tuple[int, float], ...]:
        """The proposals of a photo that are alike to a region of it, the most alike first.

        Args:
            image: path, bytes, PIL picture or array.
            mask: (H, W) bool at the photo's own size.
            arm: whose features are compared; the model's best if None.

        Returns:
            The id of each region, as in a result, and its cosine with the given one, -1..1.

        Raises:
            ImageError, CorrectionError: the photo or the mask cannot be used.
        """
        photo = self.analysed(image)
        arm = arm or default_arm(self.model)
        own = self.embed(self._cut_out(photo, [mask]), arm).regions[0]
        alike = self._features(photo, arm).regions @ own
        return tuple((int(k) + 1, float(alike[k])) for k in np.argsort(-alike, kind="stable"))

    def with_prompts(self: T, taught: TaughtPrompts) -> T:
        """The same arms and one more, `yours`: the adapted one with mask prompts that a person has taught.

        It belongs to that person: this segmenter, which others may share, stays as it is. Both share every
        other weight and the analysed photos, whose features of `yours` are kept by the prompts' contents.

        Raises:
            CheckpointError: the prompts were taught to other weights.
        """
        self.classifier(TAUGHT)  # loaded once for all
        other = self.sibling(self.proposer, self.settings, self._reload)
        other._take_prompts(self, taught)
        other.classifier(YOURS)
        return other

    def _take_prompts(self: T, other: T, taught: TaughtPrompts) -> None:
        """Become `other` with prompts of one's own."""
        self._arms, self._id, self._taught = {**other._arms}, other._id, taught

    def classifier(self, arm: Arm) -> Classifier:
        """See `PhotoAnalyser.classifier`; `yours` is made of the taught prompts."""
        if arm == YOURS and self._taught is not None and arm not in self._arms:
            clip = self._taught.arm_of(super().classifier(TAUGHT).clip)
            self.add_classifier(Classifier(clip, self._texts), YOURS)
        return super().classifier(arm)

    def features_key(self, arm: Arm) -> str:
        """See `PhotoAnalyser.features_key`; `yours` differs from person to person."""
        return f"{arm} {self.weights_id(arm)}" if arm == YOURS else arm

    def prompt(self, photo: PhotoAnalysis, prompt: Prompt) -> PromptedMasks:
        """Ask the proposer; a photo whose encoding is not kept is encoded anew."""
        proposer, embedding = promptable(self.proposer), photo.proposals.embedding
        if embedding is None:
            embedding = proposer.embed_image(photo.working)
        return proposer.prompt(embedding, prompt, (photo.image.shape[0], photo.image.shape[1]))

    def weights_id(self, arm: Arm) -> str:
        """What identifies the weights of an arm: features of others are not comparable."""
        clip = self.region_clip(arm)
        return clip.weights_id or clip.tower_id

    def reminded(
        self,
        scores: Scores,
        regions: NDArray[np.float32],
        arm: Arm,
        vocabulary: Vocabulary,
        templates: str,
        memory: Memory | None,
        *,
        with_hidden: bool = True,
    ) -> Scores:
        """The scores with what the examples of a memory say of R regions.

        Raises:
            CorrectionError: the memory is of another model.
        """
        if memory is None or not len(memory):
            return scores
        shown = example_arm(arm)
        memory.check(shown, self.weights_id(shown), self.model)
        classifier = self.classifier(arm)
        examples, settings = memory.features(shown), classifier.merge_settings
        lacks = self._lacks(classifier, arm, memory, vocabulary, templates, with_hidden)
        evidence = memory_evidence(regions, examples, lacks, classifier.memory_settings)
        return replace(scores, typed=scores.typed + evidence / np.float32(settings.logit_scale))

    def _lacks(
        self,
        classifier: Classifier,
        arm: Arm,
        memory: Memory,
        vocabulary: Vocabulary,
        templates: str,
        with_hidden: bool,
    ) -> NDArray[np.float32]:
        """What the examples teach under a vocabulary; kept with the memory for the photos of a batch."""
        kept = self._lessons.setdefault(memory, {})
        key = (arm, self.weights_id(arm), vocabulary.text, templates, with_hidden)
        if key not in kept:
            if len(kept) >= MOST_KEPT:
                kept.clear()
            classes = {fold(w): c for w, c in zip(vocabulary.prompts, vocabulary.owners, strict=True)}
            owners = np.array([classes.get(fold(example.name), -1) for example in memory.examples])
            rows = memory.features(example_arm(arm))
            # Without the photo as a whole, which has no effect on the names of regions.
            features = PhotoFeatures(rows, rows[0], {})
            scores = classifier.score(features, vocabulary, templates, with_hidden=with_hidden)
            odds = log_odds(scores.typed, scores.hidden, classifier.merge_settings)
            kept[key] = lacks_of(odds, owners, classifier.memory_settings)
        return kept[key]

    def analysed(self, image: ImageSource) -> PhotoAnalysis:
        """The kept analysis of a photo, or a new one."""
        return run_to_end(self._analyse(image, ()))

    def _features(self, photo: PhotoAnalysis, arm: Arm) -> PhotoFeatures:
        key = self.features_key(arm)
        if key not in photo.features:
            photo.features[key] = self.embed(photo, arm)
            self.photos.put(photo.key, photo)
        return photo.features[key]

    def _own_arms(self, arms: Sequence[Arm] | None) -> tuple[Arm, ...]:
        return tuple(arms) if arms is not None else (*arms_of(self.model),)

    def _cut_out(self, photo: PhotoAnalysis, masks: Sequence[NDArray[np.bool_]]) -> PhotoAnalysis:
        """The photo with masks of a person in the place of its proposals, in their order."""
        if len(masks) > MOST_MASKS:
            check_count(len(masks))
        size = (photo.image.shape[0], photo.image.shape[1])
        small = []
        for mask in masks:
            if mask.ndim != 2 or mask.dtype != np.bool_:
                raise CorrectionError(f"A mask must be bool (height, width), not {mask.dtype} {mask.shape}.")
            check_size((mask.shape[0], mask.shape[1]), size)
            if not mask.any():
                raise CorrectionError("The mask is empty; mark at least one pixel.")
            small.append(at_size(mask, photo.working.shape[:2]))
        if not small:
            return replace(
                photo,
                proposals=Proposals.empty(*photo.working.shape[:2]),
                features={},
                cache=type(photo.cache)(),
            )
        boxes = [cv2.boundingRect(mask.astype(np.uint8)) for mask in small]
        proposals = Proposals(
            np.stack(small),
            np.ones(len(small), dtype=np.float32),
            np.array([(x, y, x + w, y + h) for x, y, w, h in boxes], dtype=np.int32),
        )
        return replace(photo, proposals=proposals, features={}, cache=type(photo.cache)())
