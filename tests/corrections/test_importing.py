"""Label files of ours and of others, opened with their photo and written again."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from ovseg_demo.corrections import (
    CorrectedRegion,
    apply_corrections,
    corrections_from_coco,
    corrections_from_label_map,
    corrections_to_json,
    joined_vocabulary,
    read_corrections,
)
from ovseg_demo.corrections.rasterising import filled
from ovseg_demo.errors import CorrectionError
from ovseg_demo.output.export import export
from ovseg_demo.output.palette import assign_colours
from ovseg_demo.result import ClassResult, Segmentation
from tests.drawn import box_mask, drawn_result

SHAPE = (40, 60)
SIZE = (40, 60)
DISC = (np.mgrid[:40, :60][0] - 18) ** 2 + (np.mgrid[:40, :60][1] - 25) ** 2 < 150
RING = DISC & ~((np.mgrid[:40, :60][0] - 18) ** 2 + (np.mgrid[:40, :60][1] - 25) ** 2 < 30)


def result() -> Segmentation:
    image = np.random.default_rng(0).integers(0, 256, (*SHAPE, 3), dtype=np.uint8)
    boxes = [(2, box_mask(SHAPE, 0, 0, 60, 12)), (1, RING), (3, box_mask(SHAPE, 50, 30, 58, 38))]
    return drawn_result(image, ["dog", "sky", "fence, wooden", "cat"], boxes)


def opened_again(corrections: tuple[CorrectedRegion, ...]) -> Segmentation:
    """What the corrections show on a photo for which nothing else is found."""
    names = joined_vocabulary("", [r.name for r in corrections if r.name]).names
    blank = np.zeros(SHAPE, np.uint16)
    classes = tuple(
        ClassResult(name, (name,), i + 1, colour, False, 0.0, 0.1)
        for i, (name, colour) in enumerate(zip(names, assign_colours(names), strict=True))
    )
    image = np.zeros((*SHAPE, 3), np.uint8)
    seg = Segmentation(image, blank, blank.copy(), classes, (), {}, {}, {}, "adapted")
    return apply_corrections(seg, corrections)


def named_pixels(seg: Segmentation) -> np.ndarray:
    names = np.array(["", *(c.name for c in seg.classes)])
    return np.asarray(names[seg.label_map])


@pytest.mark.parametrize("files", [("coco",), ("label-map", "classes"), ("json", "corrections")])
def test_nothing_is_lost_in_the_round_trip(files: tuple[str, ...], tmp_path: Path) -> None:
    before = result()
    if "corrections" in files:
        whole = CorrectedRegion.of(np.ones(SHAPE, bool), None)
        pieces = [CorrectedRegion.of(before.label_map == c.index, c.name) for c in before.classes[:3]]
        before = apply_corrections(before, [whole, *pieces])
    for name, content in export(before, files).items():
        (tmp_path / name).write_bytes(content)
    main = {"coco": "coco.json", "label-map": "label_map.png", "json": "corrections.json"}[files[0]]
    corrections = read_corrections(tmp_path / main, SIZE)
    again = opened_again(corrections)
    assert (named_pixels(again) == named_pixels(before)).all()
    twice = export(again, ("coco",))["coco.json"]
    third = opened_again(corrections_from_coco(json.loads(twice), SIZE))
    assert (named_pixels(third) == named_pixels(before)).all()


def test_a_result_with_corrections_opens_with_them(tmp_path: Path) -> None:
    corrections = [CorrectedRegion.of(DISC, "cat"), CorrectedRegion.of(RING, None)]
    files = export(apply_corrections(result(), corrections), ("json",))
    (tmp_path / "result.json").write_bytes(files["result.json"])
    assert read_corrections(tmp_path / "result.json", SIZE) == tuple(corrections)


def coco(annotations: list[dict[str, Any]], **change: Any) -> dict[str, Any]:
    return {
        "images": [{"id": 7, "width": 60, "height": 40, "file_name": "a/photo.jpg"}],
        "annotations": [{"id": i, "image_id": 7, "category_id": 18, **a} for i, a in enumerate(annotations)],
        "categories": [{"id": 18, "name": "dog|puppy"}, {"id": 3, "name": "cat"}],
    } | change


def test_masks_of_pycocotools_in_all_forms_are_read() -> None:
    tools = pytest.importorskip("pycocotools.mask", reason="comes with the test extra")
    compressed = tools.encode(np.asfortranarray(RING.astype(np.uint8)))
    compressed["counts"] = compressed["counts"].decode()
    turns = np.flatnonzero(np.diff(RING.T.ravel().astype(int))) + 1
    plain = {"size": [40, 60], "counts": np.diff([0, *turns, RING.size]).tolist()}
    for form in (compressed, plain):
        rest, ring = corrections_from_coco(coco([{"segmentation": form}]), SIZE)
        assert rest.name is None and rest.mask.all()
        assert ring.name == "dog/puppy" and (ring.mask == RING).all()
    assert ring.counts == compressed["counts"]


def test_polygons_are_filled_as_others_fill_them() -> None:
    tools = pytest.importorskip("pycocotools.mask", reason="comes with the test extra")
    shapely = pytest.importorskip("shapely", reason="comes with the test extra")
    rng = np.random.default_rng(1)
    for _ in range(20):
        angles = np.sort(rng.uniform(0, 2 * np.pi, 12))
        radii = rng.uniform(8, 18, 12)
        ring = np.stack([30 + 1.4 * radii * np.cos(angles), 20 + radii * np.sin(angles)], axis=1)
        (region,) = corrections_from_coco(
            coco([{"segmentation": [ring.ravel().tolist()]}]), SIZE, rest_unassigned=False
        )
        area = shapely.Polygon(ring).intersection(shapely.box(0, 0, 60, 40)).area
        assert region.mask.sum() == pytest.approx(area, abs=0.5 * shapely.Polygon(ring).length ** 0.5 + 6)
        theirs = tools.frPyObjects([ring.ravel().tolist()], 40, 60)
        ours = tools.encode(np.asfortranarray(region.mask.astype(np.uint8)))
        assert tools.iou(theirs, [ours], [0]).item() > 0.85


@settings(max_examples=25, deadline=None)
@given(arrays(np.bool_, (9, 7), elements=st.booleans()))
def test_polygons_of_our_geojson_give_back_the_mask(mask: Any) -> None:
    from ovseg_demo.output.mask_formats import keyhole, polygons

    assert (filled([keyhole(one) for one in polygons(mask)], (9, 7)) == mask).all()


def test_small_regions_lie_on_top_and_several_polygons_are_one_region() -> None:
    large = [0.0, 0.0, 60.0, 0.0, 60.0, 40.0, 0.0, 40.0]
    two = [[5.0, 5.0, 9.0, 5.0, 9.0, 9.0, 5.0, 9.0], [20.0, 5.0, 24.0, 5.0, 24.0, 9.0, 20.0, 9.0]]
    annotations = [{"segmentation": two, "category_id": 3}, {"segmentation": [large]}]
    corrections = corrections_from_coco(coco(annotations), SIZE)
    assert [r.name for r in corrections] == [None, "dog/puppy", "cat"]
    assert corrections[2].mask.sum() == 32


def test_the_image_is_found_by_name_or_size() -> None:
    images = [
        {"id": 1, "width": 60, "height": 40, "file_name": "other.jpg"},
        {"id": 7, "width": 60, "height": 40, "file_name": "photo.png"},
        {"id": 9, "width": 61, "height": 40, "file_name": "third.png"},
    ]
    content = coco([{"segmentation": [[0, 0, 5, 0, 5, 5]]}], images=images)
    assert len(corrections_from_coco(content, SIZE, photo_name="photo.jpg")) == 2
    assert len(corrections_from_coco(content | {"images": images[1:]}, SIZE)) == 2
    with pytest.raises(CorrectionError, match="3 images and 2 of them may be this photo"):
        corrections_from_coco(content, SIZE)
    with pytest.raises(CorrectionError, match="photo of 61 x 40 and this one has 60 x 40"):
        corrections_from_coco(content, SIZE, photo_name="third.jpg")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ([], "lists images, annotations and categories"),
        (coco([], images=[]), "has 0 images"),
        (coco([{"segmentation": [], "bbox": [0, 0, 5, 5]}]), "has no mask, maybe only a box"),
        (coco([{"segmentation": {"size": [60, 40], "counts": "1"}}]), "photo of 40 x 60 and this one"),
        (coco([{"segmentation": {"size": [40, 60], "counts": "zz"}}]), "damaged|covers"),
        (coco([{"segmentation": {"size": [40, 60], "counts": [5, -5]}}]), "damaged"),
        (coco([{"segmentation": [[0, 0, float("nan"), 5]]}]), "damaged"),
        (coco([{"segmentation": [["a", 0]]}]), "damaged"),
        (coco([{"segmentation": [[0, 0, 1]]}]), "damaged"),
        (coco([{"segmentation": [[0, 0, 5, 0, 5, 5]], "category_id": 99}]), "no category '99'"),
        (coco([{"segmentation": [[0, 0, 5, 0, 5, 5]]}], categories=[{"id": 18, "name": "<b>x"}]), "markup"),
        (coco([{"segmentation": [[0, 0, 5, 0, 5, 5]]}] * 1001), "1,001 corrected regions"),
    ],
)
def test_coco_files_that_cannot_be_used_are_told_in_one_sentence(content: Any, why: str) -> None:
    with pytest.raises(CorrectionError, match=why) as told:
        corrections_from_coco(content, SIZE)
    assert "\n" not in str(told.value) and len(str(told.value)) < 250


def png(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


LABELS = np.zeros(SHAPE, np.uint8)
LABELS[RING], LABELS[:5] = 2, 1


@pytest.mark.parametrize(
    "classes",
    [
        [{"index": 0, "name": None}, {"index": 1, "name": "sky"}, {"index": 2, "name": "dog"}],
        [{"id": 1, "name": "sky"}, {"id": 2, "name": "dog"}],
        {"1": "sky", "2": "dog"},
    ],
)
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_label_maps_of_anybody_are_read(classes: Any, kind: type) -> None:
    corrections = corrections_from_label_map(png(LABELS.astype(kind)), classes, SIZE)
    again = opened_again(corrections)
    assert (named_pixels(again) == np.array(["", "sky", "dog"])[LABELS]).all()


def test_a_list_of_names_counts_from_0_and_255_is_left_open() -> None:
    labels = LABELS.copy()
    labels[30:] = 255
    corrections = corrections_from_label_map(png(labels), ["wall", "sky", "dog"], SIZE)
    assert {r.name for r in corrections} == {None, "wall", "sky", "dog"}
    assert not corrections[0].mask[30:].any()
    assert not np.any([r.mask[30:].any() for r in corrections])


@pytest.mark.parametrize(
    ("content", "classes", "why"),
    [
        (png(LABELS[:10]), {"1": "a", "2": "b"}, "photo of 60 x 10 and this one has 60 x 40"),
        (png(np.zeros((*SHAPE, 3), np.uint8)), {}, "one number a pixel and this picture has RGB"),
        (png(LABELS), {"1": "sky"}, "number 2 has no name"),
        (png(LABELS), [{"name": "sky"}], "Classes are a list"),
        (png(LABELS), 5, "Classes are a list"),
        (png(LABELS)[:60], {"1": "a", "2": "b"}, "cannot be read"),
        (b"GIF89a", {}, "cannot be read"),
    ],
)
def test_label_maps_that_cannot_be_used_are_told_in_one_sentence(
    content: bytes, classes: Any, why: str
) -> None:
    with pytest.raises(CorrectionError, match=why):
        corrections_from_label_map(content, classes, SIZE)


def test_files_that_cannot_be_opened_are_told_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(CorrectionError, match=r"cannot be read .* check the path"):
        read_corrections(tmp_path / "none.json", SIZE)
    (tmp_path / "text.json").write_text("hello")
    with pytest.raises(CorrectionError, match="neither JSON nor a PNG"):
        read_corrections(tmp_path / "text.json", SIZE)
    (tmp_path / "map.png").write_bytes(png(LABELS))
    with pytest.raises(CorrectionError, match=r"classes\.json' cannot be read"):
        read_corrections(tmp_path / "map.png", SIZE)
    (tmp_path / "result.json").write_bytes(export(result(), ("json",))["result.json"])
    with pytest.raises(CorrectionError, match=r"no corrections; open its coco\.json"):
        read_corrections(tmp_path / "result.json", SIZE)
    other = corrections_to_json([CorrectedRegion.of(np.ones((3, 3), bool), "dog")])
    (tmp_path / "corrections.json").write_text(json.dumps(other))
    with pytest.raises(CorrectionError, match="photo of 3 x 3 and this one has 60 x 40"):
        read_corrections(tmp_path / "corrections.json", SIZE)
