"""The picture of a result is legible: colours, outlines, names where there is room, and a legend."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from drawn import box_mask, drawn_coffee, drawn_result

from ovseg_demo.output.label_spots import label_spots
from ovseg_demo.output.legend import legend
from ovseg_demo.output.rendering import overlay, overlay_with_legend, side_by_side
from ovseg_demo.result import Segmentation, compare


@pytest.fixture(scope="module")
def result() -> Segmentation:
    """The coffee photo with a box for the cup, one for the saucer, and no fork."""
    return drawn_coffee(["cup", "saucer", "fork"])


def test_the_overlay_has_the_size_of_the_photo_and_leaves_the_photo_alone(result: Segmentation) -> None:
    before = result.image.copy()
    picture = overlay(result)
    assert picture.shape == result.image.shape and picture.dtype == np.uint8
    assert np.array_equal(result.image, before)


def test_a_class_pixel_is_the_photo_mixed_with_the_colour_of_its_class(result: Segmentation) -> None:
    picture = overlay(result, opacity=0.5, outlines=False, labels=False)
    mixed = 0.5 * result.image[300, 300] + 0.5 * np.array(result.classes[1].colour)
    assert np.allclose(picture[300, 300], mixed, atol=1)


def test_where_no_word_fits_the_photo_stays_in_its_own_colours_a_little_darker(result: Segmentation) -> None:
    bare = overlay(result)[390, 20:80].astype(float)
    photo = result.image[390, 20:80].astype(float)
    assert np.all(bare <= photo + 1) and bare.sum() > 0.7 * photo.sum()


def test_no_opacity_shows_the_photo_itself(result: Segmentation) -> None:
    assert np.array_equal(overlay(result, opacity=0.0, outlines=False, labels=False), result.image)


def test_an_outline_is_dark_with_light_beside_it(result: Segmentation) -> None:
    picture = overlay(result, opacity=0.5, labels=False)[300, 90:110].mean(axis=1)
    plain = overlay(result, opacity=0.5, outlines=False, labels=False)[300, 90:110].mean(axis=1)
    assert picture[9:11].max() < 60
    assert (picture - plain).max() > 40


def test_outlines_do_not_depend_on_the_strips_in_which_they_are_drawn() -> None:
    labels = np.kron(np.random.default_rng(0).integers(0, 3, (31, 25)), np.ones((57, 80), int))
    photo = np.full((*labels.shape, 3), 128, np.uint8)  # three and a half million pixels: two strips
    upright, turned = (
        drawn_result(photo, ["a", "b"], [(index, map_ == index) for index in (1, 2)])
        for map_ in (labels, labels[::-1])
    )
    assert np.array_equal(overlay(upright, labels=False), overlay(turned, labels=False)[::-1])


def test_names_stand_on_their_regions(result: Segmentation) -> None:
    with_names, without = overlay(result), overlay(result, labels=False)
    ys, xs = np.nonzero((with_names != without).any(axis=2))
    assert len(xs) > 500
    assert (result.label_map[ys, xs] > 0).mean() > 0.95


def test_a_spot_lies_inside_its_class_and_small_specks_get_none(result: Segmentation) -> None:
    spots = label_spots(result)
    height, width = result.label_map.shape
    assert {s.class_index for s in spots} == {1, 2}
    for spot in spots:
        assert result.label_map[int(spot.y * height), int(spot.x * width)] == spot.class_index
    speck = drawn_result(result.image, ["crumb"], [(1, box_mask((height, width), 5, 5, 9, 9))])
    assert label_spots(speck) == ()


def test_a_region_too_small_for_its_name_stays_without(result: Segmentation) -> None:
    small = drawn_result(result.image, ["a rather long name"], [(1, box_mask((400, 600), 10, 10, 60, 40))])
    assert np.array_equal(overlay(small), overlay(small, labels=False))


def test_the_legend_shows_every_colour_that_is_in_the_picture_and_no_other(result: Segmentation) -> None:
    strip = legend(result)
    assert strip.shape[1] == result.size[0]
    shown = {tuple(pixel) for pixel in strip.reshape(-1, 3).tolist()}
    assert result.classes[0].colour in shown and result.classes[1].colour in shown
    assert result.classes[2].colour not in shown


def test_words_that_were_not_found_make_the_legend_longer(result: Segmentation) -> None:
    all_found = drawn_result(result.image, ["cup"], [(1, result.label_map > 0)])
    one_missing = drawn_result(result.image, ["cup", "fork"], [(1, result.label_map > 0)])
    assert legend(one_missing).shape[0] > legend(all_found).shape[0]


def test_both_arms_fit_on_one_sheet_with_the_verdict(result: Segmentation) -> None:
    shape = result.image.shape[:2]
    vanilla = drawn_result(
        result.image, ["cup", "saucer", "fork"], [(2, box_mask(shape, 100, 60, 500, 380))], arm="vanilla"
    )
    sheet = side_by_side(compare(vanilla, result))
    assert sheet.shape[1] >= 2 * shape[1] and sheet.shape[0] > shape[0]


def test_a_sheet_of_very_large_photos_is_as_wide_as_screens_show() -> None:
    photo = np.full((300, 9000, 3), 90, np.uint8)
    one, other = (
        drawn_result(photo, ["wall"], [(1, box_mask((300, 9000), 0, 0, width, 300))], arm=arm)
        for width, arm in ((9000, "adapted"), (4500, "vanilla"))
    )
    sheet = side_by_side(compare(other, one))
    assert 2 * 4096 < sheet.shape[1] < 2.1 * 4096
    assert overlay_with_legend(one).shape[1] == 9000


@pytest.mark.parametrize(
    "name",
    [
        "猫",
        "كلب كبير",
        "собака",
        "🦓",
        "שלום",
        "<b>bold</b>",
        "x" * 100,
        "e\u0301\u0323\u0304",
        "a {} b % \\ &amp;",
        "नमस्ते",
    ],
)
def test_names_of_any_script_can_be_drawn(result: Segmentation, name: str) -> None:
    one = drawn_result(result.image, [name, name + " too"], [(1, box_mask((400, 600), 0, 0, 600, 300))])
    picture = overlay_with_legend(one)
    assert picture.shape[0] > 400
    assert not np.array_equal(overlay(one), overlay(one, labels=False))


@pytest.mark.parametrize("shape", [(1, 1), (1, 4000), (3000, 1), (2, 3)])
def test_extreme_photos_have_a_picture_too(shape: tuple[int, int]) -> None:
    photo = np.full((*shape, 3), 90, np.uint8)
    everything = drawn_result(photo, ["dust", "zebra"], [(1, np.ones(shape, np.bool_))])
    nothing = drawn_result(photo, ["dust", "zebra"], [])
    for seg in (everything, nothing):
        assert overlay(seg).shape == photo.shape
        assert overlay_with_legend(seg).shape[1] >= 480


def test_a_thousand_names_fit_the_legend(result: Segmentation) -> None:
    names = [f"thing number {i}" for i in range(1000)]
    strip = legend(drawn_result(result.image, names, [(1, result.label_map > 0)]))
    assert strip.shape[1] == 600


def test_drawing_needs_no_torch() -> None:
    code = (
        "import sys, ovseg_demo.output.rendering, ovseg_demo.output.export; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
