"""Results as files.

A format is one function from a result to named bytes, and one entry of `EXPORTS`, which page, command line
and API read. A file gets its name when it is complete.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import secrets
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ovseg_demo import __version__
from ovseg_demo.errors import OutputError, quoted
from ovseg_demo.output.label_files import (
    ExportSource,
    as_json,
    coco_files,
    coco_polygon_files,
    geojson_files,
    stem_of,
    yolo_files,
)
from ovseg_demo.output.rendering import overlay_with_legend, side_by_side
from ovseg_demo.result import Comparison, Segmentation

__all__ = [
    "EXPORTS",
    "Exporter",
    "Files",
    "check_folder",
    "comparison_files",
    "export",
    "write_arms",
    "write_comparison",
    "write_files",
    "write_result",
    "zip_comparison",
    "zipped",
]

Files = dict[str, bytes]
"""Contents by relative path; folders are parted by `/`."""

_LARGE_PX = 12_000_000
"""Pictures of more pixels are compressed in half the time, to files that are 8 % larger."""

_PART_BYTES = 1 << 20
"""Of a file that is written into an archive without a check in between."""

_ALWAYS = ("overlay", "label-map", "json")
"""Formats that are written with every result."""


@dataclass(frozen=True)
class Exporter:
    """One format: its title in the menu, and the function that makes its files."""

    title: str
    make: Callable[[ExportSource, str], Files]
    """From the result and the photo's file name."""


def export(
    seg: Segmentation,
    formats: tuple[str, ...],
    photo_name: str = "photo.jpg",
    *,
    check: Callable[[], None] = lambda: None,
) -> Files:
    """Make the files of several formats.

    Args:
        seg: the result.
        formats: keys of `EXPORTS`.
        photo_name: file name of the photo, for the formats that state it.
        check: called between two parts of the work; raises to end it.

    Raises:
        OutputError: a format that is not in `EXPORTS`.
    """
    return _export(ExportSource(seg, check), formats, photo_name)


def _export(source: ExportSource, formats: tuple[str, ...], photo_name: str) -> Files:
    files: Files = {}
    for key in formats:
        if key not in EXPORTS:
            raise OutputError(f"There is no format {quoted(key)}; choose from {', '.join(EXPORTS)}.")
        source.check()
        files.update(EXPORTS[key].make(source, photo_name))
    return files


def write_result(
    seg: Segmentation,
    directory: str | Path,
    *,
    formats: tuple[str, ...] = (),
    photo_name: str = "photo.jpg",
) -> None:
    """Write `overlay.png`, `label_map.png`, `result.json`, and the files of further formats, into a folder.

    Existing files of these names are replaced.

    Raises:
        OutputError: the folder cannot be made or written to, the disk is full, or a format is unknown; no
            file is then left half-written.
    """
    write_files(export(seg, (*_ALWAYS, *formats), photo_name), directory)


def write_comparison(
    comparison: Comparison,
    directory: str | Path,
    *,
    formats: tuple[str, ...] = (),
    photo_name: str = "photo.jpg",
) -> None:
    """Write the second arm as `write_result` does, and the first into a folder of its name.

    `comparison.png` shows both on one sheet, `comparison.json` has the differences.

    Raises:
        OutputError: as in `write_result`.
    """
    write_files(comparison_files(comparison, (*_ALWAYS, *formats), photo_name), directory)


def write_arms(
    results: Sequence[Segmentation],
    directory: str | Path,
    *,
    formats: tuple[str, ...] = (),
    photo_name: str = "photo.jpg",
) -> None:
    """Write the last result as `write_result` does, the others into folders of their arms' names.

    Raises:
        OutputError: as in `write_result`.
    """
    files = export(results[-1], (*_ALWAYS, *formats), photo_name)
    for result in results[:-1]:
        files |= _in_folder(result, (*_ALWAYS, *formats), photo_name)
    write_files(files, directory)


def check_folder(directory: str | Path) -> None:
    """Refuse a folder that cannot be made or written to, before the work whose results go there.

    Raises:
        OutputError: it is a file, lies below one, or may not be written to.
    """
    folder = Path(directory)
    try:
        place = next((one for one in (folder, *folder.absolute().parents) if one.exists()), folder)
        if place.exists() and not (place.is_dir() and os.access(place, os.W_OK)):
            code = errno.EACCES if place.is_dir() else errno.ENOTDIR
            raise OSError(code, os.strerror(code))
    except OSError as error:
        raise OutputError(write_error_message(error, folder)) from error


def write_files(files: Mapping[str, bytes], directory: str | Path) -> None:
    """Write all files under temporary names, and rename them when the last one is written.

    Raises:
        OutputError: the folder cannot be made or written to, or the disk is full.
    """
    folder = Path(directory)
    waiting: list[tuple[Path, Path]] = []
    try:
        for name, content in files.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.parent / f".{secrets.token_hex(8)}.part"
            waiting.append((temporary, target))
            with temporary.open("xb") as file:
                file.write(content)
        for temporary, target in waiting:
            temporary.replace(target)
    except OSError as error:
        raise OutputError(write_error_message(error, folder)) from error
    finally:
        for temporary, _ in waiting:
            with suppress(OSError):
                temporary.unlink()


def zipped(files: Mapping[str, bytes], check: Callable[[], None] = lambda: None) -> bytes:
    """One zip archive; the same files give the same bytes. `check` as in `export`."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            # PNGs are compressed already.
            info.compress_type = zipfile.ZIP_STORED if name.endswith(".png") else zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            info.file_size = len(content)
            with archive.open(info, "w") as file:
                for start in range(0, len(content), _PART_BYTES):
                    check()
                    file.write(memoryview(content)[start : start + _PART_BYTES])
    return buffer.getvalue()


def zip_comparison(
    comparison: Comparison, photo_name: str = "photo.jpg", *, check: Callable[[], None] = lambda: None
) -> bytes:
    """Everything about two arms in one archive; `check` as in `export`."""
    return zipped(comparison_files(comparison, _in_zip(), photo_name, check=check), check)


def comparison_files(
    comparison: Comparison,
    formats: tuple[str, ...],
    photo_name: str,
    *,
    check: Callable[[], None] = lambda: None,
) -> Files:
    """The second arm's files, the first arm's in a folder of its name, and what differs; see `export`."""
    files = export(comparison.second, formats, photo_name, check=check)
    files |= _in_folder(comparison.first, formats, photo_name, check)
    files["comparison.png"] = _png(side_by_side(comparison, check), check)
    files["comparison.json"] = as_json(comparison.to_json())
    return files


def _in_folder(
    seg: Segmentation, formats: tuple[str, ...], photo_name: str, check: Callable[[], None] = lambda: None
) -> Files:
    files = export(seg, formats, photo_name, check=check)
    return {f"{folder_of(seg.arm)}/{name}": content for name, content in files.items()}


def folder_of(arm: str) -> str:
    """Folder for the files of an arm: its name, in which a model's may hold slashes and colons."""
    return re.sub(r"[^\w.@+-]+", "-", arm).strip("-.") or "arm"


def write_error_message(error: OSError, folder: Path) -> str:
    """Why files could not be written into a folder, and what helps."""
    where = quoted(folder, 200)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"There is no space left to write into {where}; free some or choose another folder."
    if error.errno == errno.EFBIG:
        return f"A file for {where} is larger than this system lets one be; choose another folder."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.EROFS):
        return f"{where} cannot be written to ({error.strerror}); choose another folder."
    return f"Writing into {where} failed ({error.strerror or error}); choose another folder."


# --- pictures and facts ---------------------------------------------------------------------------------


def _overlay_files(source: ExportSource, photo_name: str) -> Files:
    """The coloured photo with its legend below."""
    return {"overlay.png": _png(overlay_with_legend(source.seg, source.check), source.check)}


def _label_map_files(source: ExportSource, photo_name: str) -> Files:
    """A palette PNG: 0 = unassigned (black), i = the i-th class in its colour.

    A palette has 256 places. With more than 255 classes it is a 16-bit greyscale PNG of the same numbers.
    """
    seg = source.seg
    if len(seg.classes) > 255:
        return {"label_map.png": _png(seg.label_map, source.check)}
    palette = [0, 0, 0, *(value for c in seg.classes for value in c.colour)]
    return {"label_map.png": _png(seg.label_map.astype(np.uint8), source.check, palette)}


def _classes_files(source: ExportSource, photo_name: str) -> Files:
    """The names of the label map's numbers."""
    return {"classes.json": as_json([{"index": 0, "name": None}, *(c.to_json() for c in source.seg.classes)])}


def _json_files(source: ExportSource, photo_name: str) -> Files:
    """What was found, and what it was made from: the photo's hash, models, words, settings, number types."""
    seg = source.seg
    facts: dict[str, Any] = {
        "photo": photo_name,
        "photo_sha256": _photo_hash(seg),
        "software": {"ovseg-demo": __version__, "torch": version("torch")},
        **seg.to_json(),
    }
    return {"result.json": as_json(facts)}


def _photo_hash(seg: Segmentation) -> str:
    """SHA-256 of the photo's pixels (RGB, row by row): the same for every file that decodes to them."""
    return hashlib.sha256(np.ascontiguousarray(seg.image).data).hexdigest()


def _correction_files(source: ExportSource, photo_name: str) -> Files:
    """The corrections, to go on with, and the photo they are of, to teach with; nothing if there are none."""
    seg = source.seg
    corrections = seg.settings.get("corrections")
    if not corrections:
        return {}
    buffer = _CheckedBuffer(source.check)
    Image.fromarray(seg.image).save(buffer, "JPEG", quality=95, subsampling=0)
    photo = {"photo": photo_name, "photo_sha256": _photo_hash(seg)}
    return {"corrections.json": as_json(corrections | photo), "corrected_photo.jpg": buffer.getvalue()}


def _cutout_files(source: ExportSource, photo_name: str) -> Files:
    """One picture for each class that was found, cut to its box and transparent elsewhere."""
    seg = source.seg
    files = {}
    for c in seg.found:
        source.check()
        mask = seg.label_map == c.index
        if not mask.any():
            continue
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        shown = mask[part]
        pixels = np.empty((*shown.shape, 4), np.uint8)
        # Transparent pixels must not keep the colours of the photo.
        np.multiply(seg.image[part], shown[..., None], out=pixels[..., :3])
        np.multiply(shown, 255, out=pixels[..., 3], casting="unsafe")
        files[f"cutouts/{c.index:03d}-{_file_safe(c.name)}.png"] = _png(pixels, source.check)
    return files


def _file_safe(name: str) -> str:
    """Letters and digits of any script, everything else a hyphen; the number in front makes it unique."""
    return re.sub(r"[\W_]+", "-", name)[:40].strip("-") or "class"


def _in_zip() -> tuple[str, ...]:
    return tuple(key for key in EXPORTS if key != "zip")


def _zip_files(source: ExportSource, photo_name: str) -> Files:
    """All other formats in one archive."""
    return {f"{stem_of(photo_name)}.zip": zipped(_export(source, _in_zip(), photo_name), source.check)}


EXPORTS: dict[str, Exporter] = {
    "overlay": Exporter("Overlay with legend (PNG)", _overlay_files),
    "label-map": Exporter("Label map (palette PNG)", _label_map_files),
    "classes": Exporter("Names of the label map (JSON)", _classes_files),
    "json": Exporter("All facts (JSON)", _json_files),
    "coco": Exporter("COCO instances (JSON, RLE)", coco_files),
    "coco-polygons": Exporter("COCO instances (JSON, polygons)", coco_polygon_files),
    "yolo": Exporter("YOLO segmentation (txt)", yolo_files),
    "geojson": Exporter("GeoJSON (pixel coordinates)", geojson_files),
    "cutouts": Exporter("Cut-outs per class (transparent PNG)", _cutout_files),
    "corrections": Exporter("Corrections and their photo (JSON, JPEG)", _correction_files),
    "zip": Exporter("Everything (zip)", _zip_files),
}
"""All formats, by the name that the command line and the API know them by."""


class _CheckedBuffer(io.BytesIO):
    """A file in memory that calls `check` whenever Pillow has encoded another part of a picture."""

    def __init__(self, check: Callable[[], None]) -> None:
        super().__init__()
        self._check = check

    def write(self, content: Any, /) -> int:
        self._check()
        return super().write(content)


def _png(pixels: npt.NDArray[Any], check: Callable[[], None], palette: Sequence[int] | None = None) -> bytes:
    """Encode a picture as PNG.

    Args:
        pixels: (H, W) uint8 or uint16, (H, W, 3) or (H, W, 4) uint8.
        check: as in `export`.
        palette: red, green and blue of each number of an (H, W) uint8 picture.
    """
    picture = Image.fromarray(pixels)
    if palette is not None:
        picture.putpalette(palette)
    buffer = _CheckedBuffer(check)
    picture.save(buffer, "PNG", compress_level=1 if picture.width * picture.height > _LARGE_PX else 4)
    return buffer.getvalue()
