"""Part 1: whatever file comes, the loader gives a picture or a sentence, in bounded time and memory."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings

from ovseg_demo.errors import ImageError
from ovseg_demo.imaging import load_image
from tests.robustness import hostile_files as hostile
from tests.robustness.plan import Plan
from tests.robustness.table import Figure, is_sentence
from tests.robustness.workers import Outcome, in_a_worker

__all__ = ["figures"]

CPU_LIMIT_S = 20.0
"""Of one file, at the limits of the settings."""
WALL_LIMIT_S = 180.0
"""The same on a machine that is busy with other things."""
MEMORY_LIMIT_MB = 2048.0
"""Of the whole process, for the largest pictures that are allowed."""

_HYPOTHESIS_BLOCK = 500
_FOLDER = Path(tempfile.gettempdir()) / "ovseg-largest-pictures"


def figures(plan: Plan) -> list[Figure]:
    """Run the part, but for what needs a server (see `app_files`)."""
    mutated = _mutations(plan.files * 3 // 4)
    found = mutated + _strategies(plan.files // 4)
    crafted = list(in_a_worker(check_crafted, range(len(hostile.crafted())), wall_limit_s=WALL_LIMIT_S))
    everything = found + crafted
    result = [
        Figure.none_of(len(everything), "hostile files: crashes", _told(everything, "crash")),
        Figure.none_of(len(everything), f"hostile files: over {CPU_LIMIT_S:.0f} s", _slow(everything)),
        Figure.none_of(len(everything), "refusals that are no clear sentence", _told(everything, "unclear")),
        Figure.none_of(len(everything), "pictures that are no uint8 RGB", _told(everything, "wrong")),
        Figure.none_of(
            len(crafted), "bombs, disguises, polyglots: wrong answers", _told(crafted, "unexpected")
        ),
        Figure.at_most("most memory of the loader", _peak(everything), MEMORY_LIMIT_MB, "MB"),
        _mix(mutated),
        _archives(),
    ]
    if plan.thorough:
        largest = _largest()
        result += [
            Figure.none_of(len(largest), "largest allowed pictures: not read", _not_good(largest)),
            Figure.none_of(
                len(largest), f"largest allowed pictures: over {CPU_LIMIT_S:.0f} s", _slow(largest)
            ),
            Figure.at_most("most memory for them", _peak(largest), MEMORY_LIMIT_MB, "MB"),
        ]
    return result


# --- what is done in the worker ---------------------------------------------------------------------------


def read(data: bytes) -> tuple[str, str]:
    """ "good", "refused", or what is wrong with the answer."""
    try:
        image = load_image(data)
    except ImageError as error:
        told = str(error)
        return ("refused", told) if is_sentence(told) else ("unclear", told)
    fine = image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size > 0
    return ("good", "") if fine else ("wrong", f"{image.dtype} {image.shape}")


def check_mutated(number: int) -> tuple[str, str]:
    """A damaged real picture."""
    return read(hostile.mutated(number))


def check_strategies(number: int) -> tuple[str, str]:
    """A block of files drawn by hypothesis; the first bad one ends it."""
    bad: list[tuple[str, str]] = []

    @seed(number)
    @settings(
        max_examples=_HYPOTHESIS_BLOCK,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(hostile.random_files())
    def each(data: bytes) -> None:
        kind, remark = read(data)
        if kind not in ("good", "refused"):
            bad.append((kind, f"{remark} from {data[:60]!r}"))

    each()
    return bad[0] if bad else ("good", "")


def check_crafted(number: int) -> tuple[str, str]:
    """A file that was made to hurt: pictures must be read, all else must be refused."""
    name, data = list(hostile.crafted().items())[number]
    kind, remark = read(data)
    readable = name.startswith(("1 x", "100,000", "polyglot: JPEG", "polyglot: PNG", "polyglot: BMP")) or (
        name == "bomb: PNG of 7,000 x 7,000 in 7 kB"
    )
    # A picture with a bomb beside its pixels may be read or refused.
    either = name == "bomb: text of a PNG"
    if kind in ("good", "refused") and (kind == "good") != readable and not either:
        return "unexpected", f"{name}: {kind} {remark}"
    return kind, f"{name}: {remark}"


def check_largest(number: int) -> tuple[str, str]:
    """A picture of the largest allowed size, read from a file by a process that holds nothing else."""
    return read((_FOLDER / str(number)).read_bytes())


def write_largest(number: int) -> tuple[str, str]:
    """Write the largest pictures, in a process of its own, whose memory is not counted."""
    for place, data in enumerate(hostile.largest().values()):
        (_FOLDER / str(place)).write_bytes(data)
    return "good", ""


# --- figures ----------------------------------------------------------------------------------------------


def _archives() -> Figure:
    """Uploads of a batch: what comes out is bounded, has names without folders, never came from the disk."""
    from ovseg_demo.page.batch import photos_in
    from ovseg_demo.settings import Settings

    refused = {"too many photos", "encrypted"}  # of the rest each file is told for itself
    limits = Settings(max_file_bytes=3_000_000, max_batch_bytes=20_000_000)
    wrong = []
    with tempfile.TemporaryDirectory() as name:
        for kind, content in hostile.hostile_archives().items():
            path = Path(name) / "upload.zip"
            path.write_bytes(content)
            try:
                photos = photos_in([str(path)], limits)
            except ImageError as error:
                if kind not in refused or not is_sentence(str(error)):
                    wrong.append(f"{kind}: {error}")
                continue
            names = [photo for photo, _ in photos]
            if kind in refused or sum(len(content) for _, content in photos) > limits.max_batch_bytes:
                wrong.append(f"{kind}: taken")
            if any(c in photo for photo in names for c in '/\\:"<>|\n') or any(
                b"root:" in c for _, c in photos
            ):
                wrong.append(f"{kind}: {names}")
        wrong += [f"left {path}" for path in Path(name).iterdir() if path.name != "upload.zip"]
    return Figure.none_of(len(hostile.hostile_archives()), "archives made to hurt: wrong answers", wrong)


def _mutations(count: int) -> list[Outcome]:
    return list(in_a_worker(check_mutated, range(count), wall_limit_s=WALL_LIMIT_S))


def _strategies(count: int) -> list[Outcome]:
    blocks = max(1, count // _HYPOTHESIS_BLOCK)
    one_by_one = in_a_worker(check_strategies, range(blocks), wall_limit_s=WALL_LIMIT_S * 3)
    # A block counts as the files in it; its time is theirs together.
    return [
        Outcome(o.number, o.kind, o.remark, o.cpu_s / _HYPOTHESIS_BLOCK, o.peak_mb)
        for o in one_by_one
        for _ in range(_HYPOTHESIS_BLOCK)
    ]


def _largest() -> list[Outcome]:
    _FOLDER.mkdir(exist_ok=True)
    try:
        written = list(in_a_worker(write_largest, [0], wall_limit_s=10 * WALL_LIMIT_S))
        assert written[0].kind == "good", written[0].remark
        # One process each: the peak of one would hide that of the next.
        return [
            outcome
            for number in range(len(list(_FOLDER.iterdir())))
            for outcome in in_a_worker(check_largest, [number], wall_limit_s=2 * WALL_LIMIT_S)
        ]
    finally:
        shutil.rmtree(_FOLDER)


def _told(outcomes: Sequence[Outcome], kind: str) -> list[str]:
    return [f"{o.number}: {o.remark}" for o in outcomes if o.kind == kind]


def _not_good(outcomes: Sequence[Outcome]) -> list[str]:
    return [f"{o.number}: {o.kind} {o.remark}" for o in outcomes if o.kind != "good"]


def _slow(outcomes: Sequence[Outcome]) -> list[str]:
    return [
        f"{o.number}: {o.cpu_s:.1f} s {o.remark}"
        for o in outcomes
        if o.kind == "hang" or o.cpu_s > CPU_LIMIT_S
    ]


def _peak(outcomes: Sequence[Outcome]) -> float:
    return max(o.peak_mb for o in outcomes)


def _mix(outcomes: Sequence[Outcome]) -> Figure:
    """A fuzzer whose files are all refused, or all read, tests nothing."""
    good = sum(o.kind == "good" for o in outcomes) / len(outcomes)
    return Figure(
        "share of damaged pictures that is still read", f"{good:.0%}", "10 % to 90 %", 0.1 <= good <= 0.9
    )
