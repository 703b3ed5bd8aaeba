"""The pipeline: a photo and words enter, a segmentation leaves, each step runs once, in order.

Page, command line, evaluator and benchmarks all call it; none has a pipeline of its own.

    segmenter = Segmenter.from_pretrained("ovseg-mini")
    result = segmenter("photo.jpg", "dog, grass, sky")
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Literal

from ovseg_demo.analysis import ImageSource
from ovseg_demo.clip.text import Templates
from ovseg_demo.corrections import CorrectedRegion, apply_corrections, joined_vocabulary
from ovseg_demo.memory import Memory, with_nearest_examples
from ovseg_demo.merging import merge
from ovseg_demo.models import COMPARED, default_arm, split_arm
from ovseg_demo.naming.classifier import PhotoAnalysis
from ovseg_demo.naming.reading import names_compared, text_progress
from ovseg_demo.output.neighbouring_colours import separate_colours
from ovseg_demo.progress import Progress, Stopwatch, embedding_progress, run_to_end, with_cpu_fallback
from ovseg_demo.region_tools import RegionTools, example_arm
from ovseg_demo.reporting import clip_facts, proposer_facts, segmentation
from ovseg_demo.result import Arm, Comparison, Segmentation, compare
from ovseg_demo.vocabulary import Vocabulary

__all__ = ["ImageSource", "MergeRule", "Segmenter", "Words"]

MergeRule = Literal["default", "benchmark", "published-demo"]
Words = str | Iterable[str] | Vocabulary


@dataclass(frozen=True)
class _Options:
    """How one request wants its regions named; None stands for the settings' default."""

    merge: MergeRule | None
    templates: Templates | None
    strictness: float
    ensemble: float | None
    corrections: tuple[CorrectedRegion, ...] = ()
    memory: Memory | None = None


class Segmenter(RegionTools):
    """Names the regions of photos. A proposer and the arms of one CLIP, as `PhotoAnalyser` takes them."""

    def __call__(
        self,
        image: ImageSource,
        names: Words,
        weights: Arm | None = None,
        *,
        merge: MergeRule | None = None,
        templates: Templates | None = None,
        strictness: float = 0.0,
        ensemble: float | None = None,
        corrections: Sequence[CorrectedRegion] = (),
        memory: Memory | None = None,
    ) -> Segmentation:
        """Segment one photo.

        Args:
            image: path, bytes, PIL picture or array.
            names: text as typed, names, or a vocabulary.
            weights: which arm names the regions; the model's best if None.
            merge: how regions become a label map; the settings' default if None.
            templates: sentences around a name; the settings' default if None.
            strictness: added to the log-odds a word needs to be found and to claim a region (default rule).
            ensemble: share of CLIP, 0 to 1, beside a proposer that names its own masks (published rules); 0 =
                CLIP alone; the settings' default if None.
            corrections: what a person says of regions, in order; they lie over what is found, and their names
                join the words, which may then be empty.
            memory: examples; regions alike to one get its name, if it is among the words.

        Raises:
            ImageError: the photo cannot be used.
            VocabularyError: the words cannot be used.
            CorrectionError: the corrections are of another photo's size, or the memory is of another model.
        """
        options = _Options(merge, templates, strictness, ensemble, tuple(corrections), memory)
        return run_to_end(self._stream_arms(image, names, (weights or default_arm(self.model),), options))[0]

    def stream(
        self,
        image: ImageSource,
        names: Words,
        weights: Arm | None = None,
        *,
        merge: MergeRule | None = None,
        templates: Templates | None = None,
        strictness: float = 0.0,
        ensemble: float | None = None,
        corrections: Sequence[CorrectedRegion] = (),
        memory: Memory | None = None,
    ) -> Generator[Progress, None, Segmentation]:
        """The same in steps: yields progress, returns the result; closing the generator stops the work."""
        options = _Options(merge, templates, strictness, ensemble, tuple(corrections), memory)
        (result,) = yield from self._stream_arms(image, names, (weights or default_arm(self.model),), options)
        return result

    def compare(
        self,
        image: ImageSource,
        names: Words,
        arms: tuple[Arm, Arm] = COMPARED,
        *,
        merge: MergeRule | None = None,
        templates: Templates | None = None,
        strictness: float = 0.0,
        ensemble: float | None = None,
        corrections: Sequence[CorrectedRegion] = (),
        memory: Memory | None = None,
    ) -> Comparison:
        """Two arms on the same proposals, words, templates and merge rule; by default vanilla and adapted."""
        options = _Options(merge, templates, strictness, ensemble, tuple(corrections), memory)
        return compare(*run_to_end(self._stream_arms(image, names, arms, options)))

    def stream_compare(
        self,
        image: ImageSource,
        names: Words,
        arms: tuple[Arm, Arm] = COMPARED,
        *,
        merge: MergeRule | None = None,
        templates: Templates | None = None,
        strictness: float = 0.0,
        ensemble: float | None = None,
        corrections: Sequence[CorrectedRegion] = (),
        memory: Memory | None = None,
    ) -> Generator[Progress, None, Comparison]:
        """`compare` step by step."""
        options = _Options(merge, templates, strictness, ensemble, tuple(corrections), memory)
        first, second = yield from self._stream_arms(image, names, arms, options)
        return compare(first, second)

    def segment_arms(
        self,
        image: ImageSource,
        names: Words,
        arms: Sequence[Arm],
        *,
        merge: MergeRule | None = None,
        templates: Templates | None = None,
        strictness: float = 0.0,
        ensemble: float | None = None,
        corrections: Sequence[CorrectedRegion] = (),
        memory: Memory | None = None,
    ) -> tuple[Segmentation, ...]:
        """Any number of arms on the same proposals, words, templates and merge rule."""
        options = _Options(merge, templates, strictness, ensemble, tuple(corrections), memory)
        return run_to_end(self._stream_arms(image, names, tuple(arms), options))

    def _stream_arms(
        self, image: ImageSource, names: Words, arms: tuple[Arm, ...], options: _Options
    ) -> Generator[Progress, None, tuple[Segmentation, ...]]:
        """The arms one after the other; begun again on the CPU if a GPU fails."""
        leave = partial(self._move_to_cpu, self.device)
        return (yield from with_cpu_fallback(lambda: self._attempt(image, names, arms, options), leave))

    def _attempt(
        self, image: ImageSource, names: Words, arms: tuple[Arm, ...], options: _Options
    ) -> Generator[Progress, None, tuple[Segmentation, ...]]:
        started, limits = time.perf_counter(), self.settings
        vocabulary = joined_vocabulary(
            names,
            [region.name for region in options.corrections if region.name is not None],
            max_names=limits.max_names,
            max_name_length=limits.max_name_length,
        )
        yield Progress("read", 0.0, "Reading the photo")
        photo = yield from self._analyse(image, arms)
        results = []
        for number, arm in enumerate(arms):
            timings = dict(photo.timings)
            progress = 0.7 + 0.3 * number / len(arms)
            key = self.features_key(arm)
            if key not in photo.features:
                yield embedding_progress(photo.proposals.masks, progress)
                photo.features[key] = self.embed(photo, arm)
                timings |= photo.features[key].timings
                self.photos.put(photo.key, photo)
            shares = progress + 0.2 / len(arms), progress + 0.29 / len(arms)
            results.append((yield from self._decide(photo, arm, vocabulary, options, timings, shares)))
        total = time.perf_counter() - started
        yield Progress("merge", 1.0, f"Done in {total:.1f} s")
        return separate_colours([replace(r, timings={**r.timings, "total": total}) for r in results])

    def _decide(
        self,
        photo: PhotoAnalysis,
        arm: Arm,
        vocabulary: Vocabulary,
        options: _Options,
        timings: Mapping[str, float],
        shares: tuple[float, float],
    ) -> Generator[Progress, None, Segmentation]:
        """Name the regions; `shares` of the request are done before and after the words are read."""
        stopwatch, classifier = Stopwatch(), self.classifier(arm)
        rule, templates = options.merge or self.settings.merge, options.templates or self.settings.templates
        numbers = classifier.merge_settings.stricter(options.strictness)
        ensemble = self.settings.ensemble if options.ensemble is None else options.ensemble
        features = photo.features[self.features_key(arm)]
        queries, hidden = photo.proposals.queries, rule == "default"
        names = names_compared(vocabulary, with_hidden=hidden)
        yield from text_progress(classifier, names, templates, *shares)
        scores = classifier.score(features, vocabulary, templates, queries, with_hidden=hidden)
        scores = self.reminded(
            scores, features.regions, arm, vocabulary, templates, options.memory, with_hidden=hidden
        )
        stopwatch.mark("text")
        size = photo.image.shape[0], photo.image.shape[1]
        merged = merge(rule, scores, photo.proposals, vocabulary.names, numbers, ensemble=ensemble, size=size)
        stopwatch.mark("merge")
        used = {
            "merge": rule,
            "templates": templates,
            "vocabulary": vocabulary.text,
            "max_side_px": self.settings.max_side_px,
            "max_regions": self.settings.max_regions,
            "mask_threshold": self.settings.mask_threshold,
            "strictness": options.strictness,
            "ensemble": ensemble,
            "merge_settings": asdict(numbers),
            **({"memory": len(options.memory)} if options.memory else {}),
            **({"notice": self.notice} if self.notice else {}),
        }
        name, model = split_arm(arm, self.model)
        clip = clip_facts(model, name, self.region_clip(arm))
        models = {"clip": clip, "proposer": proposer_facts(self.proposer)}
        spent = {"crop": 0.0, "embed": 0.0, **timings, **stopwatch.seconds}
        result = segmentation(photo, arm, vocabulary, merged, timings=spent, models=models, settings=used)
        result = with_nearest_examples(result, features.regions, example_arm(arm), options.memory)
        return apply_corrections(result, options.corrections)
