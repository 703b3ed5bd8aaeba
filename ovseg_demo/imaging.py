"""Load pictures from untrusted files as one array: uint8 RGB, upright, without transparency.

Page, command line, batch and training use this loader. It checks the size of a file before it reads it and
the size of a picture before it decodes it. A file's first bytes, not its name, select one of a few decoders.

Pillow's global limits and Python's warning filters stay as they are: changing them is not thread-safe. A
program that does not want Pillow's warnings on its stderr sets a filter when it starts.
"""

from __future__ import annotations

import io
import stat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from ovseg_demo.decompression_limits import why_too_costly
from ovseg_demo.errors import ImageError, quoted
from ovseg_demo.settings import Settings

__all__ = ["RGBImage", "load_image", "resize_to_side"]

RGBImage = NDArray[np.uint8]
"""(H, W, 3) uint8, red green blue, C-contiguous."""

# (offset, bytes found there, format, decoder). A phone's MPO is a JPEG followed by a second one.
# `Image.open` would try some thirty more formats, among them EPS, which starts Ghostscript, and its warnings
# about large pictures depend on process-wide filters.
_DECODERS: tuple[tuple[int, bytes, str, type[ImageFile.ImageFile]], ...] = (
    (0, b"\xff\xd8\xff", "JPEG", JpegImageFile),
    (0, b"\x89PNG\r\n\x1a\n", "PNG", PngImageFile),
    (8, b"WEBP", "WebP", WebPImageFile),
    (0, b"GIF87a", "GIF", GifImageFile),
    (0, b"GIF89a", "GIF", GifImageFile),
    (0, b"BM", "BMP", BmpImageFile),
    (0, b"II*\0", "TIFF", TiffImageFile),
    (0, b"MM\0*", "TIFF", TiffImageFile),
    (0, b"II+\0", "TIFF", TiffImageFile),
    (0, b"MM\0+", "TIFF", TiffImageFile),
    (4, b"ftypavif", "AVIF", AvifImageFile),
    (4, b"ftypavis", "AVIF", AvifImageFile),
)

_ADVICE = "use a JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF picture"

# Other files that people try; searched without case near the start of a file that no decoder fits.
_OTHER_KINDS: tuple[tuple[bytes, str], ...] = (
    (b"%pdf", "a PDF document"),
    (b"%!ps", "a PostScript file"),
    (b"\xc5\xd0\xd3\xc6", "a PostScript file"),
    (b"<svg", "an SVG drawing"),
    (b"<html", "a web page"),
    (b"<!doctype html", "a web page"),
    (b"pk\x03\x04", "a ZIP archive or an office document"),
    (b"\0\0\0\x0cjp  ", "a JPEG 2000 picture"),
    (b"8bps", "a Photoshop document"),
    (b"ftyphei", "a HEIC photo"),
    (b"ftypmif1", "a HEIC photo"),
    (b"ftyp", "a video"),
    (b"\x1ae\xdf\xa3", "a video"),
)

# EXIF orientation -> the transposition that undoes it.
_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def load_image(
    source: str | Path | bytes | Image.Image | NDArray[Any],
    *,
    max_pixels: int = Settings.max_pixels,
    max_file_bytes: int = Settings.max_file_bytes,
) -> RGBImage:
    """Load a picture as a new uint8 array (H, W, 3), RGB, C-contiguous.

    EXIF rotation is applied, transparency is composited on white, animations give their first frame, and
    16-bit and floating-point pictures are scaled to 8 bits.

    Args:
        source: a path, the bytes of a picture file, a Pillow image, or an array (H, W), (H, W, 1), (H, W, 3)
            or (H, W, 4) in RGB(A) order. Arrays hold bool, uint8, uint16 over its whole range, or another
            number type in 0..1 (floats), 0..255 or 0..65535, whichever their largest value fits. The
            caller's object is not changed.
        max_pixels: largest width times height; checked before anything is decoded.
        max_file_bytes: largest file, for paths and bytes.

    Raises:
        ImageError: the file is missing, empty, too large, cut short, damaged or no picture, or the array has
            no pixels or no usable shape.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source, max_pixels)
    if isinstance(source, Image.Image):
        return _from_pillow(source, "the picture", max_pixels)
    if isinstance(source, (bytes, bytearray, memoryview)):
        label, data = "the picture", bytes(source)
    elif isinstance(source, (str, Path)):
        # Messages hold the name alone: they must not show where a server keeps its files.
        label = quoted(Path(source).name or source)
        data = _read_file(Path(source), label, max_file_bytes)
    else:
        raise ImageError(
            f"An object of type {type(source).__name__} is no picture; "
            "give a path, the bytes of a file, a Pillow image or an array."
        )
    if len(data) > max_file_bytes:
        raise ImageError(_too_many_bytes(label, len(data), max_file_bytes))
    if not data:
        raise ImageError(f"{_start(label)} is empty (0 bytes); choose another file.")
    picture = _open(data, label)
    _check_size(*picture.size, label, max_pixels)
    if reason := why_too_costly(picture, data, max_pixels):
        raise ImageError(f"{_start(label)} {reason}; save it anew as a JPEG or PNG.")
    return _from_pillow(picture, label, max_pixels)


def resize_to_side(image: RGBImage, max_side_px: int) -> RGBImage:
    """Shrink a (H, W, 3) uint8 image with antialiasing until its longer side is at most `max_side_px`.

    A smaller picture is returned unchanged. Every side keeps at least one pixel.
    """
    height, width = image.shape[:2]
    longer = max(height, width)
    if longer <= max_side_px:
        return image
    scale = max_side_px / longer
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.array(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))


# --- from a file to a Pillow image -----------------------------------------------------------------------


def _read_file(path: Path, label: str, max_file_bytes: int) -> bytes:
    """At most `max_file_bytes` + 1 bytes of a regular file."""
    try:
        info = path.stat()
        if stat.S_ISDIR(info.st_mode):
            raise ImageError(f"{label} is a folder; give the path of one picture.")
        if not stat.S_ISREG(info.st_mode):
            # A device or a pipe may never end.
            raise ImageError(f"{label} is no regular file; give the path of one picture.")
        if info.st_size > max_file_bytes:
            raise ImageError(_too_many_bytes(label, info.st_size, max_file_bytes))
        with path.open("rb") as file:
            return file.read(max_file_bytes + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise ImageError(f"{label} does not exist; check the path.") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise ImageError(f"{label} cannot be read ({reason}); check the file and its permissions.") from None


def _open(data: bytes, label: str) -> ImageFile.ImageFile:
    """The Pillow image of `data`: its header is read, its pixels are not decoded yet."""
    for offset, signature, name, decoder in _DECODERS:
        if not _begins(data, offset, signature):
            continue
        try:
            return decoder(io.BytesIO(data))
        # Decoders raise any kind of exception on hostile bytes; all of them mean a damaged file.
        except Exception:
            raise ImageError(
                f"{_start(label)} starts like a {name} picture but is cut short or damaged; "
                "save or download it again."
            ) from None
    head = data[:1024].lower()
    for signature, kind in _OTHER_KINDS:
        if signature in head:
            raise ImageError(f"{_start(label)} is {kind}, which cannot be read as a photo; {_ADVICE}.")
    # Without a name the label would give "The picture is not a picture".
    what = "This file" if label == "the picture" else _start(label)
    raise ImageError(f"{what} is not a picture; {_ADVICE}.")


def _begins(data: bytes, offset: int, signature: bytes) -> bool:
    """Whether the signature is there; a general HEIF may list AVIF among its compatible brands."""
    if signature == b"ftypavif" and data[4:12] == b"ftypmif1":
        return b"avif" in data[16 : min(int.from_bytes(data[:4], "big"), 64)]
    return data[offset : offset + len(signature)] == signature


# --- from a Pillow image to pixels -----------------------------------------------------------------------


def _from_pillow(picture: Image.Image, label: str, max_pixels: int) -> RGBImage:
    width, height = picture.size
    _check_size(width, height, label, max_pixels)
    try:
        picture.load()
        turn = _UPRIGHT.get(_orientation(picture))
        pixels = _to_rgb(picture)
        upright = pixels if turn is None else pixels.transpose(turn)
        return np.array(upright, dtype=np.uint8)
    except MemoryError:
        raise ImageError(
            f"{_start(label)} ({width:,} x {height:,} pixels) needs more memory than this machine has; "
            "make it smaller."
        ) from None
    except ImageError:
        raise
    # Decoders raise any kind of exception on damaged pixels, too.
    except Exception:
        raise ImageError(
            f"{_start(label)} is cut short or damaged, its pixels cannot be decoded; "
            "save or download it again."
        ) from None


def _orientation(picture: Image.Image) -> int:
    """The EXIF orientation 1..8, or 1 where there is none or the EXIF block is damaged."""
    try:
        value = picture.getexif().get(_ORIENTATION_TAG, 1)
        return value if isinstance(value, int) else 1
    # A photo with a damaged EXIF block is read without it.
    except Exception:
        return 1


def _to_rgb(picture: Image.Image) -> Image.Image:
    """Convert to mode RGB: transparency composited on white, more than 8 bits scaled to 8."""
    mode = picture.mode
    if mode == "RGB" and "transparency" not in picture.info:
        return picture
    if mode == "F" or mode.startswith("I"):
        # I is a 32-bit integer, I;16 and its variants 16-bit, F a 32-bit float: all are greyscale.
        return Image.fromarray(_to_uint8(np.asarray(picture))).convert("RGB")
    if mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info:
        # Pillow converts La, grey with colours already multiplied by alpha, to LA only.
        see_through = (picture.convert("LA") if mode == "La" else picture).convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, see_through).convert("RGB")
    return picture.convert("RGB")


# --- arrays ----------------------------------------------------------------------------------------------


def _from_array(array: NDArray[Any], max_pixels: int) -> RGBImage:
    label = "the array"
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        raise ImageError(
            f"The array has shape {array.shape}; a picture has (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)."
        )
    if array.dtype.kind not in "buif":
        raise ImageError(f"The array holds {array.dtype}; a picture holds numbers.")
    _check_size(array.shape[1], array.shape[0], label, max_pixels)
    pixels = _to_uint8(array)
    if pixels.shape[2] == 1:
        return np.repeat(pixels, 3, axis=2)
    if pixels.shape[2] == 4:
        return np.array(_to_rgb(Image.fromarray(pixels)), dtype=np.uint8)
    return np.array(pixels, order="C")


def _to_uint8(array: NDArray[Any]) -> NDArray[np.uint8]:
    """Numbers of any type and range as uint8 of the same shape.

    bool and uint16 have one range. For other types the largest value decides between 0..1 (floats only),
    0..255 and 0..65535. Values outside all of these are scaled from their smallest to their largest. NaN
    counts as 0.
    """
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype == np.uint16:
        return ((array.astype(np.uint32) * 255 + 32_767) // 65_535).astype(np.uint8)
    with np.errstate(over="ignore", invalid="ignore"):  # the latter for signalling NaNs
        values = np.nan_to_num(array.astype(np.float32), nan=0.0)
    values = np.clip(values, -1e30, 1e30)
    low, high = float(values.min()), float(values.max())
    if array.dtype.kind == "f" and low >= 0 and high <= 1:
        scaled = values * 255
    elif low >= 0 and high <= 255:
        scaled = values
    elif low >= 0 and high <= 65_535:
        scaled = values * (255 / 65_535)
    else:
        scaled = (values - low) * (255 / max(high - low, 1e-30))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


# --- shared ----------------------------------------------------------------------------------------------


def _check_size(width: int, height: int, label: str, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise ImageError(f"{_start(label)} has no pixels ({width} x {height}); choose another one.")
    if width * height > max_pixels:
        raise ImageError(
            f"{_start(label)} has {width:,} x {height:,} = {width * height:,} pixels and at most "
            f"{max_pixels:,} are decoded; make it smaller."
        )


def _too_many_bytes(label: str, size: int, limit: int) -> str:
    return f"{_start(label)} has {size:,} bytes and at most {limit:,} are read; save it smaller."


def _start(label: str) -> str:
    """`label` with a capital letter, to start a sentence."""
    return label[0].upper() + label[1:]
