"""The command line: photos and words in, folders of results out.

    python -m ovseg_demo segment photo.jpg --vocabulary "dog, grass, sky" --out result/
    python -m ovseg_demo models

Exit code 0, or 2 with one line on stderr for each thing that went wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ovseg_demo.cli_options import parser
from ovseg_demo.corrections import CorrectedRegion, Doubt, find_corrections, read_corrections, review_order
from ovseg_demo.errors import (
    CorrectionError,
    ImageError,
    OutputError,
    OvsegError,
    SettingsError,
    VocabularyError,
    quoted,
)
from ovseg_demo.files import write_bytes
from ovseg_demo.imaging import load_image
from ovseg_demo.memory import Memory
from ovseg_demo.models import YOURS, chosen_arms
from ovseg_demo.output.export import EXPORTS, check_folder, write_arms, write_comparison, write_result
from ovseg_demo.output.summaries import arms_summary, summary
from ovseg_demo.ray_backend import Work, on_ray
from ovseg_demo.result import Arm, compare
from ovseg_demo.settings import Settings
from ovseg_demo.vocabulary import Vocabulary

if TYPE_CHECKING:
    from ovseg_demo.clip.text import Templates
    from ovseg_demo.segmenter import MergeRule, Segmenter

__all__ = ["main"]

FAILED = 2
_REVIEW = "review.json"
_PHOTO_ENDINGS = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".jfif", ".mpo"}
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    for stream in (sys.stdout, sys.stderr):
        # Names may hold any script, terminals may not.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        settings = Settings.from_environment(os.environ)
        options = parser(settings).parse_args(argv)
        if options.command == "models":
            return _models()
        if options.command == "remember":
            return _remember(options, settings)
        return _segment(_Request.of(options), settings)
    except OvsegError as error:
        return _complain(str(error), error, "--debug" in (argv or sys.argv))
    except KeyboardInterrupt:
        return _complain("Stopped.", None, False)


def _models() -> int:
    from ovseg_demo.models import describe

    print(describe())
    return 0


def _remember(options: argparse.Namespace, settings: Settings) -> int:
    """Write a memory of the corrected regions of photos."""
    from ovseg_demo.segmenter import Segmenter

    photos = [photo for given in options.photos for photo in _photos_in(Path(given))]
    found = {photo: find_corrections(Path(options.corrections), photo) for photo in photos}
    corrected = {photo: file for photo, file in found.items() if file is not None}
    if not corrected:
        raise CorrectionError(
            f"{quoted(options.corrections, 200)} has nothing of these photos; name its files after them, as "
            f"in {photos[0].stem}.json."
        )
    segmenter = Segmenter.from_pretrained(options.model, device=options.device, settings=settings)
    limits, memory = segmenter.settings, None
    for photo, file in corrected.items():
        image = load_image(photo, max_pixels=limits.max_pixels, max_file_bytes=limits.max_file_bytes)
        regions = read_corrections(file, (image.shape[0], image.shape[1]), photo_name=photo.name)
        memory = segmenter.remember(image, regions, memory=memory)
    if not memory:
        raise CorrectionError("No corrected region has a name; name some.")
    memory.save(options.out)
    examples = "example" if len(memory) == 1 else "examples"
    print(f"{options.out}: {len(memory)} {examples} of {', '.join(memory.names)}")
    return 0


# --- segment --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Request:
    """What was asked for, checked as far as it can be without a model."""

    photos: tuple[Path, ...]
    vocabulary: str
    model: str
    arms: tuple[Arm, ...]
    proposer: str | None
    merge: MergeRule
    templates: Templates
    ensemble: float
    mask_threshold: float
    device: str
    formats: tuple[str, ...]
    memory: Path | None
    corrections: Path | None
    prompts: Path | None
    out: Path
    engine: Literal["local", "ray"]
    workers: int
    debug: bool

    @classmethod
    def of(cls, options: argparse.Namespace) -> _Request:
        formats = tuple(part.strip() for part in options.formats.split(",") if part.strip())
        unknown = [name for name in formats if name not in EXPORTS]
        if unknown:
            raise OutputError(f"There is no format {quoted(unknown[0])}; choose from {', '.join(EXPORTS)}.")
        photos = tuple(photo for given in options.photos for photo in _photos_in(Path(given)))
        memory, corrections, prompts = (
            Path(given) if given else None for given in (options.memory, options.corrections, options.prompts)
        )
        if not options.vocabulary and memory is None and corrections is None:
            raise SettingsError("Give --vocabulary, or --memory or --corrections, whose names are taken.")
        if corrections is not None and not corrections.is_dir() and len(photos) != 1:
            raise CorrectionError(
                f"{quoted(corrections, 200)} is of one photo and {len(photos)} are given; give a folder with "
                "one file or results folder a photo."
            )
        return cls(
            photos=photos,
            vocabulary=options.vocabulary,
            model=options.model,
            arms=_arms(options.weights, options.model, prompts is not None),
            proposer=options.proposer,
            merge=options.merge,
            templates=options.templates,
            ensemble=options.ensemble,
            mask_threshold=options.mask_threshold,
            device=options.device,
            formats=formats,
            memory=memory,
            corrections=corrections,
            prompts=prompts,
            out=Path(options.out),
            engine=options.engine,
            workers=options.workers,
            debug=options.debug,
        )


def _arms(words: Sequence[str], model: str, taught: bool) -> tuple[Arm, ...]:
    """The arms that are asked for; taught prompts are one more, and the only one if none is named."""
    if not taught:
        return chosen_arms(words, model)
    others = [word for word in words if word != YOURS]
    return (*(chosen_arms(others, model) if others else ()), YOURS)


def _segment(request: _Request, settings: Settings) -> int:
    settings = replace(settings, ensemble=request.ensemble, mask_threshold=request.mask_threshold)
    vocabulary = _read_vocabulary(request, settings)
    check_folder(request.out)
    rows = [
        {"photo": str(photo), "folder": str(folder)}
        for photo, folder in zip(request.photos, _folders(request.photos, request.out), strict=True)
    ]
    make = partial(_photo_work, request, vocabulary, settings)
    exit_code = 0
    doubts: list[dict[str, Any]] = []
    for done in on_ray(make, rows, request.workers) if request.engine == "ray" else map(make(), rows):
        if done["said"]:
            print(done["said"], flush=True)
        if done["wrong"]:
            exit_code = _complain(done["wrong"], None, False)
        doubts += done["doubts"]
    if len(rows) > 1:
        doubts.sort(key=lambda one: (-one["doubt"], one["photo"], one["region_id"]))
        write_bytes(request.out / _REVIEW, json.dumps(doubts, indent=2, ensure_ascii=False).encode())
        regions = "region" if len(doubts) == 1 else "regions"
        told = f"{len(doubts)} doubtful {regions}, the most doubtful first"
        print(f"{request.out / _REVIEW}: {told}", flush=True)
    return exit_code


def _photo_work(request: _Request, vocabulary: Vocabulary | None, settings: Settings) -> Work:
    """Load the models; returns what segments one photo and says what came of it."""
    from ovseg_demo.segmenter import Segmenter

    segmenter = Segmenter.from_pretrained(
        request.model, proposer=request.proposer, device=request.device, settings=settings
    )
    memory = None if request.memory is None else Memory.load(request.memory)
    if request.prompts is not None:
        from ovseg_demo.teaching import TaughtPrompts

        segmenter = segmenter.with_prompts(TaughtPrompts.load(request.prompts))
    # Weights that are missing or wrong, and a memory of others, are reported once, before the first photo.
    for arm in request.arms:
        segmenter.classifier(arm)
        if memory is not None:
            memory.check(arm, segmenter.weights_id(arm), segmenter.model)

    def work(row: dict[str, Any]) -> dict[str, Any]:
        photo, folder = Path(row["photo"]), Path(row["folder"])
        said = wrong = ""
        doubts: tuple[Doubt, ...] = ()
        try:
            said, doubts = _one_photo(segmenter, photo, vocabulary, folder, request, memory)
        except OvsegError as error:
            wrong = f"{photo}: {error}"
            _show(error, request.debug)
        except Exception as error:
            # An unexpected error of one photo must not lose the results of the others.
            wrong = f"{photo}: unexpected {type(error).__name__}: {error}; --debug shows where."
            _show(error, request.debug)
        return {"said": said, "wrong": wrong, "doubts": [asdict(doubt) for doubt in doubts]}

    return work


def _one_photo(
    segmenter: Segmenter,
    photo: Path,
    vocabulary: Vocabulary | None,
    folder: Path,
    request: _Request,
    memory: Memory | None,
) -> tuple[str, tuple[Doubt, ...]]:
    """Segment and write; returns what is said of it, and its doubtful regions."""
    limits = segmenter.settings
    image = load_image(photo, max_pixels=limits.max_pixels, max_file_bytes=limits.max_file_bytes)
    corrections: tuple[CorrectedRegion, ...] = ()
    if request.corrections is not None:
        found = find_corrections(request.corrections, photo)
        size = (image.shape[0], image.shape[1])
        corrections = () if found is None else read_corrections(found, size, photo_name=photo.name)
    results = segmenter.segment_arms(
        image,
        vocabulary or "",
        request.arms,
        merge=request.merge,
        templates=request.templates,
        corrections=corrections,
        memory=memory,
    )
    doubts = review_order({str(photo): results})
    if len(results) == 1:
        write_result(results[0], folder, formats=request.formats, photo_name=photo.name)
        return summary(photo, folder, results[0]), doubts
    if len(results) == 2:
        comparison = compare(*results)
        write_comparison(comparison, folder, formats=request.formats, photo_name=photo.name)
        return arms_summary(photo, folder, results, comparison.verdict), doubts
    write_arms(results, folder, formats=request.formats, photo_name=photo.name)
    return arms_summary(photo, folder, results), doubts


def _photos_in(given: Path) -> Iterator[Path]:
    """The path itself, or the pictures in it, by name, if it is a folder."""
    try:
        if not given.is_dir():
            yield given
            return
        inside = sorted(path for path in given.iterdir() if _is_photo(path))
    except OSError as error:
        raise ImageError(f"{quoted(given, 200)} cannot be read ({error.strerror}); check the path.") from None
    if not inside:
        raise ImageError(f"The folder {quoted(given, 200)} has no photos in it; give another one.")
    yield from inside


def _is_photo(path: Path) -> bool:
    """By its name; hidden files belong to systems and programs, whatever their ending."""
    hidden = path.name.startswith(".")
    return path.suffix.lower() in _PHOTO_ENDINGS and not hidden and not path.is_dir()


def _folders(photos: Sequence[Path], out: Path) -> Iterator[Path]:
    """One folder for each photo: `out` itself for a single one, else one named after each, never the same."""
    if len(photos) == 1:
        yield out
        return
    taken: set[str] = set()
    for photo in photos:
        name, number = photo.stem, 1
        # Compared without case: some file systems do not tell it apart.
        while name.casefold() in taken:
            number += 1
            name = f"{photo.stem}-{number}"
        taken.add(name.casefold())
        yield out / name


def _read_vocabulary(request: _Request, settings: Settings) -> Vocabulary | None:
    """The words of a request: as given, or the memory's; None = those of the corrections alone."""
    text = request.vocabulary
    if not text:
        names = Memory.load(request.memory).names if request.memory is not None else ()
        return Vocabulary.of(names, max_names=settings.max_names) if names else None
    if text.startswith("preset:"):
        return Vocabulary.preset(text.removeprefix("preset:"))
    if text.startswith("@"):
        file = Path(text[1:])
        try:
            text = file.read_text(encoding="utf-8-sig")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise VocabularyError(f"The words cannot be read from {quoted(file, 200)}: {reason}.") from error
    return Vocabulary.parse(text, max_names=settings.max_names, max_name_length=settings.max_name_length)


# --- what is said ---------------------------------------------------------------------------------------


def _complain(message: str, error: BaseException | None, debug: bool) -> int:
    _show(error, debug)
    print(" ".join(message.splitlines()), file=sys.stderr, flush=True)
    return FAILED


def _show(error: BaseException | None, debug: bool) -> None:
    if debug and error is not None:
        traceback.print_exception(error)
