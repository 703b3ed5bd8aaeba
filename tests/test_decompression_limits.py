"""Small files that take hours or gigabytes to decode are refused; ordinary ones of their kind are read."""

from __future__ import annotations

import io
import struct
import time

import pytest
from PIL import Image

from ovseg_demo.decompression_limits import jpeg_scans
from ovseg_demo.errors import ImageError
from ovseg_demo.imaging import load_image


def progressive(side: int, extra_scans: int) -> bytes:
    """A progressive JPEG whose last scan is repeated."""
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (120, 90, 30)).save(buffer, "JPEG", progressive=True, quality=5)
    data = buffer.getvalue()
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * extra_scans + b"\xff\xd9"


def run_length_bmp(width: int, height: int, codes: bytes) -> bytes:
    """An 8-bit BMP with RLE8 compression."""
    start = 14 + 40 + 1024
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(codes), 1, 1, 256, 0)
    return b"BM" + struct.pack("<IHHI", start + len(codes), 0, 0, start) + info + bytes(1024) + codes


def tiled_tiff(tile_side: int) -> bytes:
    """A TIFF of 16 x 16 grey pixels that claims deflated tiles of another size."""
    entries = {
        256: (4, 16), 257: (4, 16), 258: (3, 8), 259: (3, 8), 262: (3, 1), 277: (3, 1),
        322: (4, tile_side), 323: (4, tile_side), 324: (4, 8), 325: (4, 100),
    }  # fmt: skip
    rows = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, (kind, value) in entries.items())
    return b"II*\0" + struct.pack("<I", 108) + bytes(100) + struct.pack("<H", len(entries)) + rows + bytes(4)


def refusal(data: bytes) -> str:
    started = time.process_time()
    with pytest.raises(ImageError) as caught:
        load_image(data)
    assert time.process_time() - started < 5
    return str(caught.value)


def test_a_jpeg_that_draws_itself_a_thousand_times_is_refused() -> None:
    assert "more than 100 passes" in refusal(progressive(500, 1000))


@pytest.mark.parametrize("scans", [0, 20])
def test_ordinary_progressive_jpegs_are_read(scans: int) -> None:
    data = progressive(500, scans)
    assert load_image(data).shape == (500, 500, 3)
    assert 5 <= jpeg_scans(data, 1000) - scans <= 15


def test_what_follows_a_photo_is_not_counted() -> None:
    data = progressive(16, 0)
    assert jpeg_scans(data + b"\xff\xda\0\2" * 1000, 1000) == jpeg_scans(data, 1000)


def test_markers_inside_other_segments_are_not_counted() -> None:
    data = progressive(16, 0)
    comment = b"\xff\xfe\xff\x00" + b"\xff\xda" * (0xFEFE // 2)
    assert jpeg_scans(data[:2] + comment + data[2:], 1000) == jpeg_scans(data, 1000)


@pytest.mark.parametrize(
    ("width", "height", "codes"),
    [
        (40_000_000, 1, b"\0\2\xff\xff"),  # skips ten billion pixels
        (5_000_000, 10, b"\1\1\0\0"),  # pads a line of millions, one by one
        (100, 100, b"\0\0" * 3_000_000),  # ends the same line for ever
    ],
)
def test_run_lengths_far_beyond_the_picture_are_refused(width: int, height: int, codes: bytes) -> None:
    assert "compressed by run lengths" in refusal(run_length_bmp(width, height, codes))


def test_ordinary_run_length_bmps_are_read() -> None:
    assert load_image(run_length_bmp(8, 2, b"\x08\x01\0\0\x08\x01\0\0\0\1")).shape == (2, 8, 3)


def test_a_tile_larger_than_any_picture_is_refused() -> None:
    assert "tiles larger" in refusal(tiled_tiff(60_000))
    assert "tiles larger" not in refusal(tiled_tiff(16))  # damaged pixels, but no bomb
