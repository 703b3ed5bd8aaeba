"""Run lengths and polygons say exactly what the mask says."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco
from shapely.geometry import Polygon as ShapelyPolygon

from ovseg_demo.output.mask_formats import encode_rle, keyhole, polygons, signed_area, simplify

# pycocotools 2.0.11 still uses an array protocol that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

Mask = npt.NDArray[np.bool_]
masks = arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9)))


@given(masks)
def test_run_lengths_are_those_of_pycocotools(mask: Mask) -> None:
    theirs = coco.encode(np.asfortranarray(mask, np.uint8))
    assert encode_rle(mask).encode() == theirs["counts"]


@pytest.mark.parametrize("shape", [(1, 1), (700, 1000), (3, 70_000)])
def test_run_lengths_of_large_and_plain_masks(shape: tuple[int, int]) -> None:
    blob = np.zeros(shape, np.bool_)
    blob[: shape[0] // 2 + 1, shape[1] // 3 :] = True
    for mask in (blob, ~blob, np.ones(shape, np.bool_), np.zeros(shape, np.bool_)):
        rle = {"size": list(shape), "counts": encode_rle(mask).encode()}
        assert np.array_equal(coco.decode(rle).astype(bool), mask)


@given(masks)
def test_polygons_cover_the_mask_pixel_for_pixel(mask: Mask) -> None:
    covered = np.zeros(mask.shape, np.bool_)
    for polygon in polygons(mask):
        shape = ShapelyPolygon(polygon.outer, polygon.holes)
        assert shape.is_valid
        inside = _pixels_inside(shape, mask.shape)
        assert inside.sum() == shape.area
        assert not (covered & inside).any()
        covered |= inside
    assert np.array_equal(covered, mask)


@given(masks)
def test_outer_rings_turn_one_way_and_holes_the_other(mask: Mask) -> None:
    for polygon in polygons(mask):
        assert signed_area(polygon.outer) > 0
        assert all(signed_area(hole) < 0 for hole in polygon.holes)


@given(masks)
def test_a_keyhole_has_the_area_of_the_polygon_with_its_holes(mask: Mask) -> None:
    for polygon in polygons(mask):
        area = signed_area(polygon.outer) + sum(signed_area(hole) for hole in polygon.holes)
        assert signed_area(keyhole(polygon)) == pytest.approx(area)


def test_straight_edges_have_no_corners_in_between() -> None:
    (polygon,) = polygons(np.ones((50, 80), np.bool_))
    assert len(polygon.outer) == 4 and polygon.holes == ()
    assert signed_area(polygon.outer) == 50 * 80


def test_simplifying_keeps_a_disc_a_disc_with_few_corners() -> None:
    disc = cv2.circle(np.zeros((200, 200), np.uint8), (100, 100), 80, 1, -1).astype(bool)
    ring = polygons(disc)[0].outer
    short = simplify(ring, 1.0)
    assert len(short) < len(ring) / 4
    assert abs(signed_area(short) - disc.sum()) < 0.01 * disc.sum()


def _pixels_inside(shape: ShapelyPolygon, size: tuple[int, ...]) -> Mask:
    xs, ys = np.meshgrid(np.arange(size[1]) + 0.5, np.arange(size[0]) + 0.5)
    return np.asarray(shapely.contains_xy(shape, xs, ys), np.bool_)
