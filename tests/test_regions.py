"""One crop function for training and inference: box, fill, normalise, stretch, in this order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from ovseg_demo.regions import (
    CLIP_PIXEL_MEAN,
    CropRecipe,
    Regions,
    crop_regions,
    expand_box,
    padding,
    tight_box,
)


def photo(height: int = 40, width: int = 60, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def rectangle(left: int, top: int, right: int, bottom: int, height: int = 40, width: int = 60) -> np.ndarray:
    mask = np.zeros((1, height, width), dtype=bool)
    mask[0, top:bottom, left:right] = True
    return mask


def crop_step_by_step(image: np.ndarray, mask: np.ndarray, recipe: CropRecipe) -> torch.Tensor:
    """The same crop made the plain way, for one mask and a box that is not expanded."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    pixels = image[box].astype(np.float32)
    pixels[~mask[box]] = recipe.pixel_mean if recipe.fill == "mean" else 0
    pixels = (pixels - np.float32(recipe.pixel_mean)) / np.float32(recipe.pixel_std)
    batch = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    return functional.interpolate(batch, (recipe.size, recipe.size), mode="bicubic", align_corners=False)[0]


@settings(deadline=None)
@given(
    st.integers(1, 30),
    st.integers(1, 30),
    st.floats(0.01, 1),
    st.sampled_from(["mean", "zero"]),
    st.integers(0, 99),
)
def test_a_crop_is_filled_then_normalised_then_stretched(height, width, density, fill, seed):
    image = photo(height, width, seed)
    masks = np.random.default_rng(seed).random((3, height, width)) < density
    recipe = CropRecipe(size=16, fill=fill)
    regions = crop_regions(image, masks, recipe)
    assert regions.index.tolist() == [k for k in range(3) if masks[k].any()]
    for crop, k in zip(regions.crops, regions.index.tolist(), strict=True):
        torch.testing.assert_close(crop, crop_step_by_step(image, masks[k], recipe), atol=1e-5, rtol=0)


def test_a_square_of_the_crops_size_keeps_its_pixels():
    image, recipe = photo(), CropRecipe(size=16, pixel_mean=(0, 0, 0), pixel_std=(1, 1, 1))
    regions = crop_regions(image, rectangle(10, 5, 26, 21), recipe)
    assert regions.boxes.tolist() == [[10, 5, 26, 21]]
    expected = torch.from_numpy(image[5:21, 10:26]).permute(2, 0, 1).float()
    torch.testing.assert_close(regions.crops[0], expected, atol=1e-3, rtol=0)


def test_a_long_rectangle_is_stretched_to_the_square():
    image = np.zeros((40, 60, 3), dtype=np.uint8)
    image[:, 30:] = 255  # the right half is white
    regions = crop_regions(image, rectangle(0, 0, 60, 10), CropRecipe(size=16))
    assert regions.crops.shape == (1, 3, 16, 16)
    assert (regions.crops[0, :, :, :6] < 0).all() and (regions.crops[0, :, :, 10:] > 0).all()


@pytest.mark.parametrize("fill", ["mean", "zero"])
def test_beyond_the_largest_stretch_a_rectangle_is_padded_with_the_fill_colour(fill):
    image = np.full((40, 60, 3), 255, dtype=np.uint8)
    recipe = CropRecipe(size=24, fill=fill, max_stretch=1.5)
    regions = crop_regions(image, rectangle(0, 0, 60, 10), recipe)  # 60 x 10 becomes 60 x 40
    assert regions.boxes.tolist() == [[0, 0, 60, 10]]
    rows = regions.masks[0].any(dim=1)
    assert rows.tolist() == [9 <= row < 15 for row in range(24)]
    blank = crop_regions(image, rectangle(0, 0, 60, 10), replace(recipe, max_stretch=6)).crops * 0
    value = 0 if fill == "mean" else -CLIP_PIXEL_MEAN[0] / 68.5005327
    torch.testing.assert_close(regions.crops[0, 0, :7], blank[0, 0, :7] + value, atol=1e-5, rtol=0)
    assert (regions.crops[0, :, 11:13] > 1).all()


@given(st.integers(1, 300), st.integers(1, 300), st.floats(1, 10))
def test_padding_leaves_no_rectangle_longer_than_allowed(height, width, most):
    left, right, top, bottom = padding(height, width, most)
    padded_height, padded_width = height + top + bottom, width + left + right
    assert max(padded_height / padded_width, padded_width / padded_height) <= most + 1e-9
    assert min(left, right, top, bottom) >= 0 and abs(left - right) <= 1 and abs(top - bottom) <= 1
    assert (left + right == 0) or (top + bottom == 0)


@pytest.mark.parametrize(("fill", "value"), [("mean", 0.0), ("zero", -CLIP_PIXEL_MEAN[0] / 68.5005327)])
def test_the_background_is_painted_over(fill, value):
    mask = rectangle(0, 0, 32, 32)
    mask[0, :, 16:31] = False  # leaves a line at the right, so that the box stays
    regions = crop_regions(photo(), mask, CropRecipe(size=32, fill=fill))
    torch.testing.assert_close(regions.crops[0, 0, :, 18:29], torch.full((32, 11), value), atol=1e-5, rtol=0)


def test_what_lies_outside_the_mask_has_no_influence():
    mask = np.random.default_rng(1).random((2, 40, 60)) < 0.3
    first, second = photo(seed=1), photo(seed=2)
    second[mask.any(0)] = first[mask.any(0)]
    ours = [crop_regions(image, mask[:1] | mask[1:]).crops for image in (first, second)]
    assert torch.equal(*ours)


def test_masks_without_a_pixel_are_left_out():
    masks = np.concatenate([rectangle(0, 0, 0, 0), rectangle(3, 4, 9, 9), rectangle(0, 0, 0, 0)])
    regions = crop_regions(photo(), masks, CropRecipe(size=8))
    assert len(regions) == 1
    assert regions.index.tolist() == [1]
    assert regions.boxes.tolist() == [[3, 4, 9, 9]]


@pytest.mark.parametrize("count", [0, 2])
def test_no_region_gives_empty_tensors_of_the_right_shape(count):
    regions = crop_regions(photo(), np.zeros((count, 40, 60), dtype=bool), CropRecipe(size=8))
    shapes = [t.shape for t in (regions.crops, regions.masks, regions.boxes, regions.index)]
    assert shapes == [(0, 3, 8, 8), (0, 8, 8), (0, 4), (0,)]
    assert regions.boxes.dtype == regions.index.dtype == torch.int64


def test_a_single_pixel_fills_its_crop():
    image = photo()
    regions = crop_regions(image, rectangle(59, 39, 60, 40), CropRecipe(size=8))
    assert (regions.masks == 1).all()
    assert torch.allclose(regions.crops[0], regions.crops[0, :, :1, :1].expand(3, 8, 8), atol=1e-5)


def test_region_masks_are_resized_by_the_nearest_pixel_to_the_left():
    mask = np.zeros((1, 1, 3), dtype=bool)
    mask[0, 0, [0, 2]] = True
    regions = crop_regions(photo(1, 3), mask, CropRecipe(size=8))
    # Pixel i of the crop reads pixel floor(i * 3 / 8) of the box.
    assert regions.masks[0, 0].tolist() == [1, 1, 1, 0, 0, 0, 1, 1]
    assert set(regions.masks.unique().tolist()) == {0.0, 1.0}


def test_a_box_expands_about_its_centre_and_stays_in_the_image():
    assert expand_box((20, 10, 30, 30), 1.2, width=60, height=40) == (19, 8, 31, 32)
    assert expand_box((0, 0, 60, 40), 2, width=60, height=40) == (0, 0, 60, 40)
    assert expand_box((7, 3, 8, 9), 1.0, width=60, height=40) == (7, 3, 8, 9)


def test_expansion_cuts_towards_zero_so_a_tiny_box_grows_to_the_left():
    assert expand_box((131, 37, 132, 38), 1.2, width=160, height=120) == (130, 36, 132, 38)


def test_tight_box_of_nothing_is_none():
    assert tight_box(torch.zeros(3, 4, dtype=torch.bool)) is None


def test_arrays_and_tensors_of_any_layout_give_the_same():
    image, masks = photo(), np.random.default_rng(3).random((4, 40, 60)) < 0.2
    expected = crop_regions(image, masks)
    read_only = image.copy()
    read_only.flags.writeable = False
    flipped = np.ascontiguousarray(image[:, ::-1])[:, ::-1]
    fortran = np.asfortranarray(masks)
    for other in (
        crop_regions(torch.from_numpy(image), torch.from_numpy(masks)),
        crop_regions(read_only, masks),
        crop_regions(flipped, fortran),
    ):
        assert all(torch.equal(a, b) for a, b in zip(fields(expected), fields(other), strict=True))


def fields(regions: Regions) -> tuple[torch.Tensor, ...]:
    return regions.crops, regions.masks, regions.boxes, regions.index


def test_nothing_given_is_changed():
    image, masks = photo(), rectangle(3, 4, 30, 20)
    before = image.copy(), masks.copy()
    crop_regions(image, masks)
    assert np.array_equal(image, before[0]) and np.array_equal(masks, before[1])


def test_another_models_normalisation_is_used():
    recipe = CropRecipe(size=16, pixel_mean=(127, 127, 127), pixel_std=(128, 128, 128))
    image = np.full((40, 60, 3), 255, dtype=np.uint8)
    crops = crop_regions(image, rectangle(0, 0, 16, 16), recipe).crops
    torch.testing.assert_close(crops, torch.ones(1, 3, 16, 16), atol=1e-5, rtol=0)


def test_antialiasing_smooths_what_is_made_smaller():
    image = np.zeros((40, 60, 3), dtype=np.uint8)
    image[:, ::2] = 255  # stripes one pixel wide
    sharp, smooth = (
        crop_regions(image, rectangle(0, 0, 60, 40), CropRecipe(size=8, antialias=antialias)).crops.std()
        for antialias in (False, True)
    )
    assert smooth < 0.5 * sharp


@pytest.mark.parametrize(
    ("image", "masks", "message"),
    [
        (photo().astype(np.float32), rectangle(0, 0, 5, 5), "uint8"),
        (photo()[:, :, 0], rectangle(0, 0, 5, 5), r"\(40, 60\)"),
        (photo(), rectangle(0, 0, 5, 5).astype(np.uint8), "bool"),
        (photo(), rectangle(0, 0, 5, 5)[0], r"\(K, 40, 60\)"),
        (photo(), rectangle(0, 0, 5, 5, height=41), r"\(1, 41, 60\)"),
    ],
)
def test_other_shapes_and_types_are_refused(image, masks, message):
    with pytest.raises(ValueError, match=message):
        crop_regions(image, masks)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": 0}, "size"),
        ({"fill": "blur"}, "blur"),
        ({"expand_ratio": 0.5}, "expand_ratio"),
        ({"expand_ratio": float("nan")}, "expand_ratio"),
        ({"pixel_std": (1, 0, 1)}, "pixel_std"),
    ],
)
def test_an_impossible_recipe_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        CropRecipe(**wrong)
