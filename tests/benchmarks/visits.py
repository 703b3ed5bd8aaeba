"""Time and accuracy of one photo in the project's pipeline and in the straightforward one.

Every measurement is a line of a JSON Lines file, so a comparison that takes hours can be stopped and resumed.
Masks of the straightforward generator are kept beside it: new weights cost only the CLIP part again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import ovseg_demo
from ovseg_demo.caching.text_cache import TextCache
from ovseg_demo.evaluation.metrics import PhotoCounts, confusion_matrix
from ovseg_demo.files import atomic_file
from ovseg_demo.merging import Scores, merge
from ovseg_demo.naming.classifier import Classifier
from ovseg_demo.output.rendering import overlay
from ovseg_demo.proposals import Proposals, Proposer
from ovseg_demo.result import Segmentation
from ovseg_demo.segmenter import Segmenter
from ovseg_demo.settings import Settings
from ovseg_demo.vocabulary import Vocabulary
from tests.benchmarks.machine import Stopwatch, facts
from tests.benchmarks.straightforward import StandardGenerator, embed_names, embed_one_by_one
from train.data.truth import TruthPhoto, TruthSet

RULES = ("default", "benchmark")
TEMPLATES = "vild"
REPEATS = 3
Line = dict[str, Any]


@lru_cache(maxsize=1)
def pipeline_code() -> str:
    """A hash of what decides times and results: the package without its page, and the merge's numbers."""
    package = Path(ovseg_demo.__file__).parent
    code = [path for path in package.rglob("*.py") if "page" not in path.relative_to(package).parts]
    digest = sha256()
    for path in [*sorted(code), package.parent / "checkpoints" / "ovseg-mini" / "config.json"]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Subject:
    """A photo with its truth and the names that are asked for."""

    photo: TruthPhoto
    truth: TruthSet
    vocabulary: Vocabulary

    @property
    def key(self) -> str:
        """Names it in the file."""
        return f"{self.truth.name}/{self.photo.path.stem}"


class Book:
    """The lines measured so far; the youngest one of a (photo, contender) counts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run = time.strftime("%Y-%m-%dT%H:%M:%S")
        self.lines: dict[tuple[str, str], Line] = {}
        for text in path.read_text("utf-8").splitlines() if path.is_file() else ():
            line = json.loads(text)
            self.lines[line["photo"], line["contender"]] = line

    def add(self, photo: str, contender: str, line: Line) -> Line:
        """Append a line at once."""
        line = {"photo": photo, "contender": contender, "run": self.run, **facts(), **line}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self.lines[photo, contender] = line
        return line


# --- ours ------------------------------------------------------------------------------------------------


class Ours:
    """The demo's own Segmenter, made anew for each measurement so that nothing is kept but the weights."""

    def __init__(self, classifiers: dict[str, Classifier], proposer: Proposer, cache_dir: Path) -> None:
        self.classifiers = classifiers
        self.proposer = proposer
        self.settings = Settings(cache_dir=cache_dir)

    def fresh(self) -> Segmenter:
        """A segmenter that has seen neither photo nor words."""
        made = Segmenter("ovseg-mini", self.proposer, settings=self.settings)
        texts = TextCache(None)  # both arms share what is kept of words, as they do in the demo
        for arm, classifier in self.classifiers.items():
            made.add_classifier(Classifier(classifier.clip, texts), arm)  # type: ignore[arg-type]
        return made

    def first_run(self, subject: Subject) -> Line:
        """Photo and words to overlay, first time; then the accuracy of both merge rules."""
        watch, image = Stopwatch(), subject.photo.read()
        segmenter = self.fresh()
        with watch.stage("run"):
            result = segmenter(image, subject.vocabulary)
        with watch.stage("overlay"):
            overlay(result)
        counts = {rule: count(subject, segmenter(image, subject.vocabulary, merge=rule)) for rule in RULES}
        stages = {name: round(seconds, 5) for name, seconds in result.timings.items() if name != "total"}
        return {
            **watch.record(),
            "stages": {**stages, "overlay": round(watch.wall["overlay"], 5)},
            "masks": len(result.regions),
            "counts": counts,
            "weights": result.models["clip"]["sha256"],
            "code": pipeline_code(),
        }

    def further_runs(self, subject: Subject, new_words: Sequence[str], many: Sequence[str]) -> Line:
        """What else is promised: other words, the other arm, many names; the least of a few times each."""
        image, few, took = subject.photo.read(), list(many[:10]), Further()
        one = self.fresh()

        def as_new(names: list[str]) -> None:
            one.photos.clear()
            one(image, names)

        for _ in range(REPEATS):  # in turns, so that a busy moment of the machine meets all of them
            took.note("one_arm", lambda: self.fresh()(image, few))
            took.note("both_arms", lambda: self.fresh().compare(image, few))
        one(image, list(many))  # the first time these names are seen
        took.note("new_words", lambda: one(image, list(new_words)))
        for _ in range(REPEATS):
            took.note("seen_words", lambda: one(image, few))
            took.note("seen_words_1000", lambda: one(image, list(many)))
            took.note("names_10", lambda: as_new(few))
            took.note("names_1000", lambda: as_new(list(many)))
        return {"seconds": took.wall, "cpu_seconds": took.cpu, "code": pipeline_code()}


class Further:
    """The least seconds that pieces of work took, on the wall and of all threads."""

    def __init__(self) -> None:
        self.wall: dict[str, float] = {}
        self.cpu: dict[str, float] = {}

    def note(self, name: str, work: Callable[[], object]) -> None:
        """Do the work."""
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        self.wall[name] = round(min(wall, self.wall.get(name, wall)), 5)
        self.cpu[name] = round(min(cpu, self.cpu.get(name, cpu)), 5)


def count(subject: Subject, result: Segmentation) -> Line:
    """Pixels right, true and predicted per class that occurs."""
    return sparse(subject, result.label_map, np.array([c.found for c in result.classes]))


def sparse(subject: Subject, label_map: NDArray[np.uint16], found: NDArray[np.bool_]) -> Line:
    """The counts of one photo, without the many classes that are nowhere."""
    truth = subject.photo.read_labels()
    confusion = confusion_matrix(truth, label_map, len(subject.vocabulary), subject.truth.ignore)
    counts = PhotoCounts.of(confusion, found, subject.photo.uncertain)
    return {
        str(c): [int(counts.hits[c]), int(counts.truth[c]), int(counts.predicted[c])]
        for c in np.flatnonzero(counts.truth + counts.predicted)
    }


# --- the straightforward composition ---------------------------------------------------------------------


class Straightforward:
    """The package's generator with a grid of `side` x `side` points, then CLIP crop by crop."""

    def __init__(self, side: int, classifier: Classifier, folder: Path) -> None:
        self.name = f"grid{side}"
        self.side = side
        self.classifier = classifier
        self.folder = folder
        self._generator: StandardGenerator | None = None

    def run(self, subject: Subject) -> Line:
        """Photo and words to overlay; the masks are kept afterwards."""
        watch, image = Stopwatch(), subject.photo.read()
        if self._generator is None:
            self._generator = StandardGenerator(self.side)
        with watch.stage("propose"):
            proposals = self._generator(image)
        self._keep(subject, proposals)
        return self._classify(subject, image, proposals, watch)

    def score_again(self, subject: Subject, line: Line) -> Line | None:
        """The same masks under other weights or rules: new counts, old times; None without the masks."""
        path = self._path(subject)
        if not path.is_file():
            return None
        image, watch = subject.photo.read(), Stopwatch()
        fresh = self._classify(subject, image, unpack(path, image.shape), watch)
        times = ("run", "date", "load", "threads", "wall", "cpu", "stages")
        return {**fresh, **{key: line[key] for key in times if key in line}}

    def _classify(
        self, subject: Subject, image: NDArray[np.uint8], proposals: Proposals, watch: Stopwatch
    ) -> Line:
        clip = self.classifier.clip
        with watch.stage("embed"):
            features = embed_one_by_one(clip, image, proposals)
        with watch.stage("text"):
            embed_names(clip, subject.vocabulary.prompts, TEMPLATES)
        scores = self.classifier.score(features, subject.vocabulary, TEMPLATES)
        counts = {}
        for rule in RULES:
            with watch.stage("merge" if rule == RULES[0] else "not counted"):
                counts[rule] = self._merge(rule, subject, scores, proposals)
        watch.wall.pop("not counted"), watch.cpu.pop("not counted")
        return {
            **watch.record(),
            "stages": {name: round(value, 5) for name, value in watch.wall.items()},
            "masks": len(proposals),
            "counts": counts,
            "weights": clip.weights_sha256,
            "code": pipeline_code(),
        }

    def _merge(self, rule: str, subject: Subject, scores: Scores, proposals: Proposals) -> Line:
        names = subject.vocabulary.names
        merged = merge(rule, scores, proposals, names, self.classifier.merge_settings)
        return sparse(subject, merged.label_map, merged.found)

    def _path(self, subject: Subject) -> Path:
        return kept_masks(self.folder, subject.key, self.side)

    def _keep(self, subject: Subject, proposals: Proposals) -> None:
        bits = np.packbits(proposals.masks.reshape(len(proposals), -1), axis=1)
        with atomic_file(self._path(subject)) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, masks=bits, quality=proposals.quality)


def kept_masks(folder: Path, key: str, side: int) -> Path:
    """Where the masks of a photo lie that a grid of `side` x `side` points gave."""
    return folder / f"{key.replace('/', '_')}_grid{side}.npz"


def unpack(path: Path, shape: tuple[int, ...]) -> Proposals:
    """The masks in such a file, of a photo of this height and width."""
    with np.load(path) as file:
        bits, quality = file["masks"], file["quality"]
    flat = np.unpackbits(bits, axis=1, count=shape[0] * shape[1])
    return Proposals.of(flat.reshape(-1, *shape[:2]).astype(bool), quality)
