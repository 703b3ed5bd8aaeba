"""Refuse, by their headers, pictures that are small files and costly to decode.

The number of pixels bounds the work of most decoders. Three formats exceed that bound: a progressive JPEG may
have any number of scans, a run-length BMP may skip or pad far beyond its size (Pillow decodes it in Python),
and a tile of a TIFF may be larger than its picture.
"""

from __future__ import annotations

import re

from PIL import ImageFile

__all__ = ["why_too_costly"]

MAX_JPEG_SCANS = 100
"""Encoders write about ten; libtiff has the same limit for JPEGs inside TIFFs."""
MAX_RUN_LENGTH_PIXELS = 10_000_000
MAX_RUN_LENGTH_WIDTH = 65_535

_TILE_WIDTH, _TILE_HEIGHT = 322, 323
# A marker is FF and anything but padding (FF), a coded FF (00) or a restart (D0 to D7).
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_WITHOUT_LENGTH = frozenset({0x01, 0xD8, *range(0xD0, 0xD8)})


def why_too_costly(picture: ImageFile.ImageFile, data: bytes, max_pixels: int) -> str | None:
    """Half a sentence that says why a picture is not decoded; None for ordinary ones.

    Args:
        picture: opened and not yet decoded.
        data: the file it was opened from.
        max_pixels: limit of the picture, and so of each tile.
    """
    if picture.format in ("JPEG", "MPO") and jpeg_scans(data, MAX_JPEG_SCANS + 1) > MAX_JPEG_SCANS:
        return f"draws itself in more than {MAX_JPEG_SCANS} passes"
    if picture.format == "BMP" and any(tile[0] == "bmp_rle" for tile in picture.tile):
        width, height = picture.size
        pixels = width * height
        # At worst each pixel is a run of two bytes, and each line has an end of two.
        longest = 2 * (pixels + height) + 65_536
        if width > MAX_RUN_LENGTH_WIDTH or pixels > MAX_RUN_LENGTH_PIXELS or len(data) > longest:
            return "is compressed by run lengths, which is read for small pictures only"
    if picture.format == "TIFF":
        tags = getattr(picture, "tag_v2", {})
        width, height = (tags.get(tag, 1) for tag in (_TILE_WIDTH, _TILE_HEIGHT))
        if not (isinstance(width, int) and isinstance(height, int)) or width * height > max_pixels:
            return "has tiles larger than any picture that is read"
    return None


def jpeg_scans(data: bytes, most: int) -> int:
    """Count the scans (passes over the picture) of a JPEG file, up to `most`."""
    scans, at = 0, 2
    while scans < most and (found := _NEXT_MARKER.search(data, at)):
        marker, at = found[0][1], found.end()
        if marker == _END_OF_IMAGE:
            break
        if marker in _WITHOUT_LENGTH:
            continue
        scans += marker == _START_OF_SCAN
        at += int.from_bytes(data[at : at + 2], "big")
    return scans
