"""Photos with their corrections, out of an export: what is taught with."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from ovseg_demo.corrections import CorrectedRegion, corrections_from_json
from ovseg_demo.errors import CorrectionError, quoted
from ovseg_demo.imaging import load_image
from ovseg_demo.settings import Settings

LEAST_REGIONS = 20
"""Fewer corrected regions teach nothing that could be checked."""
MAX_PHOTOS = 200
"""Most photos of one export."""

_CORRECTIONS, _PHOTO = "corrections.json", "corrected_photo.jpg"


@dataclass(frozen=True, eq=False)
class Lesson:
    """One photo, (H, W, 3) uint8 RGB, and what a person said of its regions."""

    image: npt.NDArray[np.uint8]
    corrections: tuple[CorrectedRegion, ...]

    @property
    def named(self) -> tuple[CorrectedRegion, ...]:
        """The corrections with a name."""
        return tuple(region for region in self.corrections if region.name is not None)


def read_lessons(place: str | Path, settings: Settings | None = None) -> tuple[Lesson, ...]:
    """Every photo with corrections in an exported zip, or in a folder of results.

    Args:
        place: holds corrections.json and corrected_photo.jpg, or folders that hold them.
        settings: limits of photos.

    Raises:
        CorrectionError: it cannot be read, or holds no corrections.
        ImageError: a photo cannot be used.
    """
    place, settings = Path(place), settings or Settings()
    try:
        if place.is_dir():
            names = [path.relative_to(place).as_posix() for path in sorted(place.rglob(_CORRECTIONS))]
            return _lessons(names, lambda name: (place / name).read_bytes(), place, settings)
        with zipfile.ZipFile(place) as archive:
            too_large = [
                one.filename for one in archive.infolist() if one.file_size > settings.max_file_bytes
            ]
            if too_large:
                raise CorrectionError(f"{quoted(too_large[0])} in the export is too large; export it again.")
            return _lessons(archive.namelist(), archive.read, place, settings)
    except (zipfile.BadZipFile, zlib.error, RuntimeError):
        # The last two come from damaged archives, and from encrypted or unusual ones.
        raise CorrectionError(f"{quoted(place, 200)} is no zip; export corrections again.") from None
    except OSError as error:
        raise CorrectionError(
            f"{quoted(place, 200)} cannot be read ({error.strerror}); check the path."
        ) from None


def _lessons(
    names: Sequence[str], read: Callable[[str], bytes], place: Path, settings: Settings
) -> tuple[Lesson, ...]:
    found = [name for name in names if PurePosixPath(name).name == _CORRECTIONS]
    if len(found) > MAX_PHOTOS:
        raise CorrectionError(f"The export has {len(found)} photos and at most {MAX_PHOTOS} are read.")
    lessons = []
    for name in found:
        try:
            content = json.loads(read(name))
            photo = read(str(PurePosixPath(name).with_name(_PHOTO)))
        except (KeyError, FileNotFoundError):
            raise CorrectionError(
                f"The export has no {_PHOTO} beside {quoted(name)}; export it again."
            ) from None
        except ValueError:
            raise CorrectionError(f"{quoted(name)} in the export is no JSON; export it again.") from None
        image = load_image(photo, max_pixels=settings.max_pixels, max_file_bytes=settings.max_file_bytes)
        corrections = corrections_from_json(content, (image.shape[0], image.shape[1]))
        lessons.append(Lesson(image, corrections))
    if not lessons:
        raise CorrectionError(f"{quoted(place, 200)} holds no {_CORRECTIONS}; export a corrected photo.")
    return tuple(lessons)
