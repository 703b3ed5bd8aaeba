"""Pictures are read upright in RGB; anything else gives an error of one sentence."""

from __future__ import annotations

import io
import os
import threading
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from ovseg_demo.errors import ImageError
from ovseg_demo.imaging import load_image, resize_to_side

# A picture whose four corners differ, so that any turn shows: red, green, blue, white.
CORNERS = np.full((40, 60, 3), 128, dtype=np.uint8)
CORNERS[:10, :10] = (255, 0, 0)
CORNERS[:10, -10:] = (0, 255, 0)
CORNERS[-10:, :10] = (0, 0, 255)
CORNERS[-10:, -10:] = (255, 255, 255)


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def refusal(source: Any, **limits: int) -> str:
    with pytest.raises(ImageError) as caught:
        load_image(source, **limits)
    message = str(caught.value)
    assert message.isprintable()
    assert message.endswith(".")
    assert message[0].isupper() or message[0] == "'"
    return message


# --- formats ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF"])
def test_lossless_formats_give_the_same_pixels(kind: str) -> None:
    image = load_image(encoded(Image.fromarray(CORNERS), kind))
    np.testing.assert_array_equal(image, CORNERS)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "AVIF", "MPO"])
def test_lossy_formats_give_nearly_the_same_pixels(kind: str) -> None:
    image = load_image(encoded(Image.fromarray(CORNERS), kind, quality=95))
    assert image.shape == CORNERS.shape
    assert np.abs(image.astype(int) - CORNERS).mean() < 4


@pytest.mark.parametrize("wrap", [str, Path, Path.read_bytes, Image.open, lambda path: load_image(path)])
def test_every_kind_of_source_gives_the_same_array(tmp_path: Path, wrap: Any) -> None:
    path = tmp_path / "pic.png"
    path.write_bytes(encoded(Image.fromarray(CORNERS), "PNG"))
    source = wrap(path)
    image = load_image(source)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    np.testing.assert_array_equal(image, CORNERS)
    if isinstance(source, Image.Image):
        source.close()


def test_the_result_is_the_callers_own() -> None:
    image = load_image(CORNERS)
    image[:] = 0
    assert CORNERS.max() == 255
    picture = Image.fromarray(CORNERS.copy())
    load_image(picture)[:] = 0
    assert np.asarray(picture).max() == 255


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_photo_taken_sideways_is_turned_upright(orientation: int, kind: str) -> None:
    undo = {
        1: CORNERS,
        2: CORNERS[:, ::-1],
        3: CORNERS[::-1, ::-1],
        4: CORNERS[::-1],
        5: CORNERS.transpose(1, 0, 2),
        6: CORNERS.transpose(1, 0, 2)[::-1],
        7: CORNERS[::-1, ::-1].transpose(1, 0, 2),
        8: CORNERS.transpose(1, 0, 2)[:, ::-1],
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(undo[orientation]))
    image = load_image(encoded(stored, kind, exif=exif, **({"quality": 95} if kind != "TIFF" else {})))
    assert image.shape == CORNERS.shape
    assert np.abs(image.astype(int) - CORNERS).mean() < 4


def test_a_damaged_exif_block_does_not_cost_the_photo() -> None:
    block = b"Exif\x00\x00II*\x00\xff\xff\xff\xff" + b"\x99" * 40
    data = encoded(Image.fromarray(CORNERS), "JPEG", exif=block)
    assert load_image(data).shape == CORNERS.shape


def test_see_through_parts_are_laid_on_white() -> None:
    rgba = np.dstack([CORNERS, np.full(CORNERS.shape[:2], 255, np.uint8)])
    rgba[:20, :, 3] = 0
    rgba[20:30, :, 3] = 128
    for source in (rgba, encoded(Image.fromarray(rgba), "PNG"), Image.fromarray(rgba)):
        image = load_image(source)
        assert (image[:20] == 255).all()
        np.testing.assert_array_equal(image[30:], CORNERS[30:])
        assert abs(int(image[25, 30, 0]) - 191) <= 1


def test_a_palette_with_a_see_through_entry_is_laid_on_white() -> None:
    picture = Image.new("P", (4, 2), 0)
    picture.putpalette([10, 20, 30, 200, 0, 0])
    picture.putpixel((0, 0), 1)
    image = load_image(encoded(picture, "PNG", transparency=0))
    assert image[0, 0].tolist() == [200, 0, 0]
    assert image[1, 3].tolist() == [255, 255, 255]
    assert load_image(encoded(picture, "GIF"))[1, 3].tolist() == [10, 20, 30]
    half = load_image(encoded(picture, "PNG", transparency=bytes([128, 255])))
    assert half[1, 3].tolist() == [132, 137, 142]


def test_a_grey_or_rgb_key_colour_is_laid_on_white() -> None:
    grey = Image.new("L", (3, 1), 7)
    grey.putpixel((1, 0), 9)
    assert load_image(encoded(grey, "PNG", transparency=7))[0, :, 0].tolist() == [255, 9, 255]
    rgb = Image.new("RGB", (2, 1), (1, 2, 3))
    rgb.putpixel((1, 0), (4, 5, 6))
    image = load_image(encoded(rgb, "PNG", transparency=(1, 2, 3)))
    assert image[0].tolist() == [[255, 255, 255], [4, 5, 6]]


MODES = ["1", "L", "LA", "La", "P", "PA", "RGBX", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV"]


@pytest.mark.parametrize("mode", MODES)
def test_every_usual_mode_is_read(mode: str) -> None:
    picture = Image.fromarray(CORNERS)
    for step in {"La": ("LA", "La"), "RGBa": ("RGBA", "RGBa"), "PA": ("P", "PA")}.get(mode, (mode,)):
        picture = picture.convert(step)
    image = load_image(picture)
    expected = picture.convert("LA") if mode == "La" else picture
    assert np.abs(image.astype(int) - np.asarray(expected.convert("RGB"))).max() <= 2


def test_cmyk_photos_keep_their_colours() -> None:
    image = load_image(encoded(Image.fromarray(CORNERS).convert("CMYK"), "JPEG", quality=95))
    assert np.abs(image.astype(int) - CORNERS).mean() < 5


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_pictures_are_brought_to_eight(kind: str) -> None:
    grey = np.linspace(0, 65535, 60, dtype=np.uint16)[None].repeat(4, 0)
    image = load_image(encoded(Image.fromarray(grey), kind))
    np.testing.assert_array_equal(image[..., 0], np.rint(grey / 257).astype(np.uint8))


@pytest.mark.parametrize(
    ("mode", "values", "expected"),
    [
        ("I", [0, 128, 255], [0, 128, 255]),
        ("I", [0, 32768, 65535], [0, 128, 255]),
        ("I", [-100, 0, 100], [0, 128, 255]),
        ("F", [0.0, 0.5, 1.0], [0, 128, 255]),
        ("F", [0.0, 100.0, 200.0], [0, 100, 200]),
        ("F", [float("nan"), 0.0, 1.0], [0, 0, 255]),
        ("F", [float("-inf"), 0.0, float("inf")], [0, 128, 255]),
    ],
)
def test_wide_greyscale_is_read_by_the_range_it_shows(
    mode: str, values: list[float], expected: list[int]
) -> None:
    picture = Image.new(mode, (len(values), 1))
    for index, value in enumerate(values):
        picture.putpixel((index, 0), value)
    image = load_image(encoded(picture, "TIFF"))
    assert np.abs(image[0, :, 1].astype(int) - expected).max() <= 1


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_an_animation_gives_its_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue", "white")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert load_image(data)[3, 4].tolist() == [255, 0, 0]


# --- arrays ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "array",
    [
        CORNERS[..., 0],
        CORNERS[..., :1],
        CORNERS[..., 0].astype(np.uint16) * 257,
        CORNERS[..., 0].astype(np.float32) / 255,
        CORNERS[..., 0].astype(np.float64),
        CORNERS[..., 0].astype(np.float16),
        CORNERS[..., 0].astype(np.int64),
        CORNERS[..., 0].astype(">u2") * 257,
    ],
)
def test_arrays_of_one_channel_are_grey(array: Any) -> None:
    expected = CORNERS[..., :1].repeat(3, axis=2)
    assert np.abs(load_image(array).astype(int) - expected).max() <= 1


def test_arrays_of_three_and_four_channels_are_colour() -> None:
    np.testing.assert_array_equal(load_image(CORNERS.astype(np.float32) / 255), CORNERS)
    np.testing.assert_array_equal(load_image(CORNERS[::-1, ::2]), CORNERS[::-1, ::2])
    opaque = np.dstack([CORNERS, np.full(CORNERS.shape[:2], 255, np.uint8)])
    np.testing.assert_array_equal(load_image(opaque), CORNERS)
    assert load_image(np.array([[True, False]]))[0, :, 0].tolist() == [255, 0]


@pytest.mark.parametrize("shape", [(4,), (4, 4, 2), (4, 4, 5), (1, 4, 4, 3), ()])
def test_arrays_of_another_shape_are_refused_with_it(shape: tuple[int, ...]) -> None:
    assert str(shape) in refusal(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("shape", [(0, 4, 3), (4, 0), (0, 0)])
def test_pictures_without_pixels_are_refused(shape: tuple[int, ...]) -> None:
    assert "no pixels" in refusal(np.zeros(shape, np.uint8))
    with pytest.raises(ImageError, match="no pixels"):
        load_image(Image.new("RGB", (0, 5)))


@pytest.mark.parametrize("wrong", [np.zeros((2, 2), complex), np.array([["a"]]), np.zeros((2, 2), "M8[s]")])
def test_arrays_of_no_numbers_are_refused(wrong: Any) -> None:
    assert str(wrong.dtype) in refusal(wrong)


@pytest.mark.parametrize("wrong", [None, 5, ["photo.jpg"], object()])
def test_other_objects_are_refused_by_their_type(wrong: object) -> None:
    assert type(wrong).__name__ in refusal(wrong)


@given(
    st.sampled_from(["u1", "u2", "i4", "i8", "f2", "f4", "f8", "?"]),
    st.sampled_from([(3, 5), (1, 1), (2, 3, 3), (2, 3, 4), (4, 2, 1)]),
    st.integers(0, 2**32),
)
@example("f8", (3, 5), 5651)  # holds a signalling NaN
def test_any_numbers_make_a_picture(kind: str, shape: tuple[int, ...], seed: int) -> None:
    raw = np.random.default_rng(seed).bytes(int(np.prod(shape)) * np.dtype(kind).itemsize)
    array = (np.frombuffer(raw, np.uint8) > 99) if kind == "?" else np.frombuffer(raw, kind)
    image = load_image(array.reshape(shape))
    assert image.shape == (*shape[:2], 3)


# --- limits ----------------------------------------------------------------------------------------------


def test_too_many_pixels_are_refused_before_decoding() -> None:
    size = np.array([100_000, 100_000], ">u4").tobytes()
    chunks = {b"IHDR": size + b"\x08\x02\0\0\0", b"IDAT": b"", b"IEND": b""}
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")
        for name, body in chunks.items()
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "100,000 x 100,000 = 10,000,000,000 pixels and at most 50,000,000" in refusal(png)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_the_pixel_limit_holds_for_every_format(kind: str) -> None:
    data = encoded(Image.new("RGB", (101, 100)), kind)
    assert "101 x 100 = 10,100 pixels" in refusal(data, max_pixels=10_099)
    assert load_image(data, max_pixels=10_100).shape == (100, 101, 3)


def test_the_pixel_limit_holds_for_pillow_images_and_arrays() -> None:
    assert "10,100 pixels" in refusal(Image.new("L", (101, 100)), max_pixels=10_099)
    assert "10,100 pixels" in refusal(np.zeros((100, 101)), max_pixels=10_099)


def test_large_files_are_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.truncate(10_000_000_000)
    assert "10,000,000,000 bytes" in refusal(path)
    assert "1,001 bytes and at most 1,000" in refusal(b"\x89PNG" + b"\0" * 997, max_file_bytes=1000)


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1), (1, 100_000)])
def test_extreme_shapes_are_pictures_too(size: tuple[int, int]) -> None:
    image = load_image(encoded(Image.new("RGB", size, "red"), "PNG"))
    assert image.shape == (size[1], size[0], 3)
    assert max(resize_to_side(image, 64).shape[:2]) == min(64, max(size))
    assert min(resize_to_side(image, 64).shape[:2]) == 1


def test_pillows_limits_and_the_warning_filters_stay_as_they_are() -> None:
    def state() -> tuple[Any, ...]:
        limits = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
        return *limits, list(warnings.filters), sorted(Image.OPEN)

    before = state()
    load_image(encoded(Image.fromarray(CORNERS), "BMP"))
    refusal(b"\x89PNG\r\n\x1a\n damaged")
    refusal(b"%PDF-1.7")
    assert state() == before


def test_pillows_own_bomb_limit_does_not_overrule_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert load_image(encoded(Image.fromarray(CORNERS), "PNG")).shape == CORNERS.shape


# --- kinds of refusal -------------------------------------------------------------------------------------


def test_an_empty_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "empty.jpg"
    path.touch()
    assert "is empty (0 bytes)" in refusal(path)
    assert "is empty (0 bytes)" in refusal(b"")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
@pytest.mark.parametrize("keep", [0.03, 0.3, 0.6, 0.9])
def test_a_file_cut_short_says_so(kind: str, keep: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    assert "cut short or damaged" in refusal(data[: max(12, int(len(data) * keep))])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"%PDF-1.7\n%abc", "a PDF document"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "a PostScript file"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing"),
        (b"<!DOCTYPE html><p>404</p>", "a web page"),
        (b"PK\x03\x04" + b"\0" * 30, "a ZIP archive"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "a HEIC photo"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "a HEIC photo"),
        (b"\0\0\0\x18ftypisom\0\0\0\0", "a video"),
        (b"8BPS\0\x01", "a Photoshop document"),
        (b"hello, I am text", "not a picture"),
        (bytes(range(256)), "not a picture"),
        (b"\xff\xd8\xff", "starts like a JPEG"),
    ],
)
def test_what_is_no_photo_is_named(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "renamed.jpg"
    path.write_bytes(data)
    assert words in refusal(path)


def test_an_avif_under_the_general_brand_is_read() -> None:
    data = encoded(Image.fromarray(CORNERS), "AVIF")
    general = data[:8] + b"mif1" + data[12:]
    assert b"avif" in general[16:64]
    np.testing.assert_array_equal(load_image(general), load_image(data))


@pytest.mark.parametrize("kind", ["EPS", "PDF", "ICO", "JPEG2000", "TGA", "PPM", "ICNS"])
def test_formats_off_the_list_are_refused_whatever_the_file_is_called(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(encoded(Image.new("RGB", (64, 64)), kind))
    assert "use a JPEG, PNG" in refusal(path)


def test_paths_that_lead_nowhere_are_told_apart(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "none.jpg")
    assert "does not exist" in refusal(str(tmp_path / "none.jpg"))
    assert "is a folder" in refusal(tmp_path)
    assert "cannot be read" in refusal("a\0b.jpg") or "does not exist" in refusal("a\0b.jpg")
    assert "cannot be read" in refusal("x" * 5000)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.jpg"
    os.mkfifo(pipe)
    assert "no regular file" in refusal(pipe)


def test_file_names_cannot_break_the_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a\nb\u202e.jpg"
    path.write_bytes(b"x")
    assert refusal(path)


SEEDS = [
    encoded(Image.fromarray(CORNERS), kind) for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(SEEDS), st.lists(st.tuples(st.integers(0, 10**6), st.binary(max_size=4)), max_size=6))
def test_damaged_files_give_a_picture_or_a_sentence(seed: bytes, edits: list[tuple[int, bytes]]) -> None:
    data = bytearray(seed)
    for position, patch in edits:
        start = position % len(data)
        data[start : start + len(patch)] = patch
    try:
        image = load_image(bytes(data), max_pixels=1_000_000)
    except ImageError as caught:
        assert str(caught).isprintable()
        assert str(caught).endswith(".")
    else:
        assert image.dtype == np.uint8
        assert image.shape[2] == 3


# --- working resolution ----------------------------------------------------------------------------------


def test_resizing_keeps_the_aspect_and_never_enlarges() -> None:
    assert resize_to_side(CORNERS, 30).shape == (20, 30, 3)
    assert resize_to_side(CORNERS.transpose(1, 0, 2).copy(), 30).shape == (30, 20, 3)
    assert resize_to_side(CORNERS, 60) is CORNERS
    assert resize_to_side(CORNERS, 1024) is CORNERS


def test_resizing_averages_instead_of_skipping() -> None:
    stripes = np.zeros((64, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(resize_to_side(stripes, 64).astype(int) - 128).max() < 12


def test_many_threads_read_alike() -> None:
    data = encoded(Image.fromarray(CORNERS), "PNG")
    results: list[Any] = []
    threads = [threading.Thread(target=lambda: results.append(load_image(data))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all((image == CORNERS).all() for image in results)
    assert len(results) == 8
