"""What the browser gets is the result, pixel for pixel, whatever the words hold."""

from __future__ import annotations

import base64
import io
import json
import zlib
from dataclasses import replace

import numpy as np
import pytest
from drawn import box_mask, drawn_coffee, drawn_result
from PIL import Image

from ovseg_demo.page.viewer.payload import MAX_MAP_SIDE, MAX_PHOTO_SIDE, photo_payload, result_payload
from ovseg_demo.result import Segmentation, compare


def unpacked(text: str) -> bytes:
    return zlib.decompress(base64.b64decode(text))


@pytest.fixture(scope="module")
def result() -> Segmentation:
    return drawn_coffee(["cup", "</script><b>saucer", "fork"])


def test_maps_arrive_unchanged(result: Segmentation) -> None:
    payload = result_payload(result)
    width, height = payload["map"]["width"], payload["map"]["height"]
    assert (width, height) == result.size
    for name, values in (("labels", result.label_map), ("regions", result.region_map)):
        arrived = np.frombuffer(unpacked(payload["arms"]["adapted"][name]), "<u2").reshape(height, width)
        assert np.array_equal(arrived, values)


def test_whole_regions_arrive_as_one_bit_a_pixel(result: Segmentation) -> None:
    payload = result_payload(result)
    size = result.label_map.size
    bits = np.frombuffer(unpacked(payload["masks"]), np.uint8).reshape(2, -1)
    arrived = np.unpackbits(bits, axis=1)[:, :size].reshape(2, *result.label_map.shape).astype(bool)
    assert result.masks is not None and np.array_equal(arrived, result.masks)


def test_both_arms_share_photo_and_regions(result: Segmentation) -> None:
    payload = result_payload(compare(replace(result, arm="vanilla"), result))
    assert set(payload["arms"]) == {"adapted", "vanilla"}
    assert payload["comparison"]["verdict"] == "Both arms agree on every pixel."
    assert payload["comparison"]["spots"] == []


def test_what_changed_is_labelled_with_both_names(result: Segmentation) -> None:
    before = drawn_result(
        result.image,
        ["cup", "</script><b>saucer", "fork"],
        [(2, box_mask(result.label_map.shape, 100, 60, 500, 380))],
        arm="vanilla",
    )
    spots = result_payload(compare(before, result))["comparison"]["spots"]
    # The cup stands on the saucer and above it.
    assert [(spot["from"], spot["index"]) for spot in spots] == [(2, 1), (0, 1)]
    for spot in spots:
        x, y = int(spot["x"] * result.size[0]), int(spot["y"] * result.size[1])
        assert result.label_map[y, x] == spot["index"] and before.label_map[y, x] == spot["from"]


def test_it_is_plain_json_whatever_the_words_hold(result: Segmentation) -> None:
    again = json.loads(json.dumps(result_payload(result)))
    assert again["arms"]["adapted"]["classes"][1]["name"] == "</script><b>saucer"
    assert again["arms"]["adapted"]["facts"][0]["top"][0]["name"] == "</script><b>saucer"


@pytest.mark.parametrize("shape", [(1, 1), (1, 4000), (3000, 2000)])
def test_large_and_odd_photos_are_made_smaller_but_never_to_nothing(shape: tuple[int, int]) -> None:
    photo = np.full((*shape, 3), 128, np.uint8)
    payload = result_payload(drawn_result(photo, ["dust"], [(1, np.ones(shape, np.bool_))]))
    width, height = payload["map"]["width"], payload["map"]["height"]
    assert min(width, height) >= 1 and max(width, height) <= MAX_MAP_SIDE
    assert len(unpacked(payload["arms"]["adapted"]["labels"])) == 2 * width * height
    assert payload["photo"]["width"] == shape[1] and payload["photo"]["height"] == shape[0]


def test_the_photo_is_a_jpeg_of_bounded_size() -> None:
    told = photo_payload(np.zeros((3000, 4000, 3), np.uint8))
    assert told["url"].startswith("data:image/jpeg;base64,")
    picture = Image.open(io.BytesIO(base64.b64decode(told["url"].partition(",")[2])))
    assert max(picture.size) == MAX_PHOTO_SIDE
