"""Each format is read back by a library that is not ours, and says what the label map says."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import shapely
from drawn import box_mask, drawn_result
from PIL import Image
from pycocotools.coco import COCO
from shapely.geometry import shape

from ovseg_demo.errors import OutputError, ResourceError
from ovseg_demo.imaging import load_image
from ovseg_demo.output import label_files
from ovseg_demo.output.export import (
    EXPORTS,
    export,
    write_comparison,
    write_error_message,
    write_files,
    write_result,
    zip_comparison,
    zipped,
)
from ovseg_demo.output.mask_formats import Polygon, polygons
from ovseg_demo.result import Segmentation, compare

# pycocotools 2.0.11 still uses an array protocol that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

COFFEE = Path(__file__).parents[2] / "examples" / "coffee.jpg"
NAMES = ["cup", "saucer", "fork", "../we|rd: <name>", "猫"]


def ring(height: int, width: int) -> npt.NDArray[np.bool_]:
    disc = np.zeros((height, width), np.uint8)
    cv2.circle(disc, (300, 200), 150, 1, -1)
    cv2.circle(disc, (300, 200), 60, 0, -1)
    return disc.astype(np.bool_)


@pytest.fixture(scope="module")
def result() -> Segmentation:
    """The coffee photo with a ring (it has a hole), two boxes, one of them split in two by another."""
    photo = load_image(COFFEE)
    height, width = photo.shape[:2]
    return drawn_result(
        photo,
        NAMES,
        [
            (2, ring(height, width)),
            (1, box_mask((height, width), 10, 10, 120, 60)),
            (4, box_mask((height, width), 50, 0, 70, 100)),
            (5, box_mask((height, width), 590, 390, 600, 400)),
        ],
    )


def test_the_three_files_of_a_result(result: Segmentation, tmp_path: Path) -> None:
    write_result(result, tmp_path / "new" / "folder")
    assert {p.name for p in (tmp_path / "new" / "folder").iterdir()} == {
        "overlay.png",
        "label_map.png",
        "result.json",
    }


def test_the_label_map_has_the_numbers_as_pixels_and_the_colours_as_palette(result: Segmentation) -> None:
    picture = Image.open(io.BytesIO(export(result, ("label-map",))["label_map.png"]))
    assert picture.mode == "P"
    assert np.array_equal(np.asarray(picture), result.label_map)
    palette = np.array(picture.getpalette()).reshape(-1, 3)
    assert palette[0].tolist() == [0, 0, 0]
    assert [tuple(c) for c in palette[1 : len(NAMES) + 1].tolist()] == [c.colour for c in result.classes]


@pytest.mark.parametrize("count", [255, 256, 1000])
def test_a_label_map_of_many_classes_keeps_its_numbers(count: int) -> None:
    photo = np.zeros((20, 30, 3), np.uint8)
    names = [f"name {i}" for i in range(count)]
    seg = drawn_result(photo, names, [(count, box_mask((20, 30), 3, 3, 9, 9))])
    content = export(seg, ("label-map",))["label_map.png"]
    assert Image.open(io.BytesIO(content)).mode == ("P" if count <= 255 else "I;16")
    by_opencv = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if count > 255:
        assert np.array_equal(by_opencv, seg.label_map)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), seg.label_map)


def test_result_json_says_what_was_found_and_how_to_get_it_again(result: Segmentation) -> None:
    told = json.loads(export(result, ("json",), "my photo.jpg")["result.json"])
    assert told["photo"] == "my photo.jpg" and len(told["photo_sha256"]) == 64
    assert [c["found"] for c in told["classes"]] == [True, True, False, True, True]
    assert told["regions"][0]["box"] == [150, 50, 451, 351]
    assert told["settings"] == {"merge": "default", "templates": "vild"}
    assert told["timings"]["total"] == 2.0 and told["models"]["sha256"]


def test_pycocotools_reads_the_same_pixels_from_coco(result: Segmentation, tmp_path: Path) -> None:
    (tmp_path / "coco.json").write_bytes(export(result, ("coco",))["coco.json"])
    with redirect_stdout(io.StringIO()):
        coco = COCO(str(tmp_path / "coco.json"))
    rebuilt = np.zeros_like(result.label_map)
    for annotation in coco.loadAnns(coco.getAnnIds()):
        mask = coco.annToMask(annotation).astype(bool)
        left, top, width, height = annotation["bbox"]
        assert mask.sum() == annotation["area"] == mask[top : top + height, left : left + width].sum()
        assert not rebuilt[mask].any()
        rebuilt[mask] = annotation["category_id"]
    assert np.array_equal(rebuilt, result.label_map)
    assert [coco.cats[i]["name"] for i in sorted(coco.cats)] == NAMES


@pytest.mark.parametrize(("key", "name"), [("coco", "coco.json"), ("coco-polygons", "coco_polygons.json")])
def test_other_programs_can_import_coco(result: Segmentation, key: str, name: str, tmp_path: Path) -> None:
    """Both files have what importers ask for, and pycocotools finds the same shapes in both.

    CVAT (which reads COCO by datumaro): id, file_name, height and width of images; id and name of categories,
    0 being no category; integer id, image_id, category_id and iscrowd of annotations; a segmentation that
    is run lengths of the image's size, or polygons of an even number of coordinates, at least six.
    Label Studio: `score` and a bbox of four numbers for each annotation; polygons, iscrowd being 0. It reads
    no run lengths, which is why there is a file with polygons.
    """
    path = tmp_path / name
    path.write_bytes(export(result, (key,), "cup of coffee.jpg")[name])
    content = json.loads(path.read_text())
    (image,) = content["images"]
    assert (image["id"], image["file_name"]) == (1, "cup of coffee.jpg")
    assert (image["width"], image["height"]) == result.size
    assert [(one["id"], one["name"]) for one in content["categories"]] == list(enumerate(NAMES, start=1))
    annotations = content["annotations"]
    assert [one["id"] for one in annotations] == list(range(1, 5))
    for one in annotations:
        assert one["image_id"] == 1 and one["category_id"] in range(1, 6) and one["iscrowd"] == 0
        left, top, width, height = one["bbox"]
        assert 0 <= left < left + width <= image["width"] and 0 <= top < top + height <= image["height"]
        assert isinstance(one["area"], int | float) and 0 < one["area"] <= width * height
        assert 0 <= one["score"] <= 1
        form = one["segmentation"]
        if key == "coco":
            assert form["size"] == [image["height"], image["width"]] and isinstance(form["counts"], str)
            continue
        assert form and all(len(ring) >= 6 and len(ring) % 2 == 0 for ring in form)
        corners = np.concatenate([np.reshape(ring, (-1, 2)) for ring in form])
        assert [*corners.min(axis=0), *np.ptp(corners, axis=0)] == one["bbox"]
    with redirect_stdout(io.StringIO()):
        coco = COCO(str(path))
    for index in (1, 2, 4, 5):
        (annotation,) = coco.loadAnns(coco.getAnnIds(catIds=[index]))
        truth, theirs = result.label_map == index, coco.annToMask(annotation).astype(bool)
        assert (truth & theirs).sum() / (truth | theirs).sum() > 0.97


def test_opencv_fills_the_same_pixels_from_yolo(result: Segmentation) -> None:
    files = export(result, ("yolo",), "cup of coffee.jpg")
    rebuilt = np.zeros(result.label_map.shape, np.uint8)
    width, height = result.size
    for line in files["yolo/labels/cup of coffee.txt"].decode().splitlines():
        index, *numbers = line.split()
        corners = np.array(numbers, float).reshape(-1, 2)
        assert corners.min() >= 0 and corners.max() <= 1
        # Corners lie on the edges of pixels and OpenCV's on their centres; shift by sixteenths of a pixel.
        fixed = np.round((corners * (width, height) - 0.5) * 16).astype(np.int32)
        cv2.fillPoly(rebuilt, [fixed], int(index) + 1, shift=4)
    assert (rebuilt == result.label_map).mean() > 0.99
    for index in (1, 2, 4):
        truth, ours = result.label_map == index, rebuilt == index
        assert (truth & ours).sum() / (truth | ours).sum() > 0.93
    names = re.findall(r'^  (\d+): "(.*)"$', files["yolo/data.yaml"].decode(), re.MULTILINE)
    assert names == [(str(i), name) for i, name in enumerate(NAMES)]


def test_shapely_finds_valid_shapes_of_the_same_area_in_geojson(result: Segmentation) -> None:
    content = json.loads(export(result, ("geojson",))["regions.geojson"])
    areas = dict.fromkeys(NAMES, 0.0)
    for feature in content["features"]:
        outline = shape(feature["geometry"])
        assert outline.is_valid and outline.area == feature["properties"]["area_px"]
        areas[feature["properties"]["class"]] += outline.area
    assert areas == {c.name: (result.label_map == c.index).sum() for c in result.classes}
    saucer = next(f for f in content["features"] if f["properties"]["class"] == "saucer")
    assert not shapely.contains_xy(shape(saucer["geometry"]), 300.5, 200.5)


def test_cutouts_show_the_class_and_hide_everything_else(result: Segmentation) -> None:
    files = export(result, ("cutouts",))
    assert sorted(files) == [
        "cutouts/001-cup.png",
        "cutouts/002-saucer.png",
        "cutouts/004-we-rd-name.png",
        "cutouts/005-猫.png",
    ]
    saucer = np.asarray(Image.open(io.BytesIO(files["cutouts/002-saucer.png"])))
    assert saucer.shape == (301, 301, 4)
    solid = saucer[..., 3] == 255
    assert solid.sum() == (result.label_map == 2).sum()
    assert np.array_equal(saucer[solid][:, :3], result.image[50:351, 150:451][solid])
    assert not saucer[~solid].any()


def test_the_zip_holds_every_other_format_and_is_the_same_each_time(result: Segmentation) -> None:
    content = export(result, ("zip",), "coffee.jpg")["coffee.zip"]
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        expected = export(result, tuple(key for key in EXPORTS if key != "zip"), "coffee.jpg")
        assert {name: archive.read(name) for name in archive.namelist()} == expected
    assert content == export(result, ("zip",), "coffee.jpg")["coffee.zip"]


def test_all_formats_together_trace_each_piece_once(
    result: Segmentation, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced = []

    def counted(*arguments: Any) -> list[Polygon]:
        traced.append(arguments)
        return polygons(*arguments)

    monkeypatch.setattr(label_files, "polygons", counted)
    files = export(result, ("yolo", "geojson", "zip"))
    assert len(traced) == len(json.loads(files["regions.geojson"])["features"]) > 1


def test_no_name_can_leave_the_folder(tmp_path: Path) -> None:
    photo = np.zeros((8, 8, 3), np.uint8)
    names = ["../../up", "/etc/passwd", "C:\\temp", "..", "con", "a" * 100, "\u202etxt.exe", "\ud800"]
    seg = drawn_result(photo, names, [(i + 1, box_mask((8, 8), i, 0, i + 1, 8)) for i in range(8)])
    write_files(export(seg, tuple(EXPORTS)), tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert len(list((tmp_path / "out" / "cutouts").iterdir())) == 8


def test_an_empty_result_has_every_format(tmp_path: Path) -> None:
    seg = drawn_result(np.zeros((4, 4, 3), np.uint8), ["zebra"], [])
    write_result(seg, tmp_path, formats=tuple(EXPORTS))
    assert json.loads((tmp_path / "coco.json").read_text())["annotations"] == []
    assert (tmp_path / "yolo" / "labels" / "photo.txt").read_text() == ""


def test_an_unknown_format_is_refused_with_the_known_ones(result: Segmentation) -> None:
    with pytest.raises(OutputError, match="no format 'gif'; choose from overlay, label-map"):
        export(result, ("gif",))


def test_both_arms_lie_beside_each_other(result: Segmentation, tmp_path: Path) -> None:
    vanilla = drawn_result(result.image, NAMES, [(1, ring(400, 600))], arm="vanilla")
    write_comparison(compare(vanilla, result), tmp_path)
    three = {"overlay.png", "label_map.png", "result.json"}
    assert {p.name for p in tmp_path.iterdir()} == {*three, "vanilla", "comparison.png", "comparison.json"}
    assert {p.name for p in (tmp_path / "vanilla").iterdir()} == three
    assert json.loads((tmp_path / "vanilla" / "result.json").read_text())["arm"] == "vanilla"
    assert json.loads((tmp_path / "comparison.json").read_text())["verdict"].endswith(".")


def test_a_folder_that_is_a_file_gives_one_sentence(result: Segmentation, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(OutputError, match=r"taken' cannot be written to .*; choose another folder\.$"):
        write_result(result, tmp_path / "taken")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_gives_one_sentence(result: Segmentation, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="cannot be written to"):
        write_result(result, tmp_path / "new")


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_when_the_disk_takes_no_more_nothing_half_written_stays(tmp_path: Path) -> None:
    code = """
import resource, signal, sys
from ovseg_demo.errors import OutputError, ResourceError
from ovseg_demo.output.export import write_files
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try:
    write_files({"small.txt": b"new", "large.bin": bytes(100_000)}, sys.argv[1])
except OutputError as error:
    print(error)
"""
    (tmp_path / "small.txt").write_text("old")
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.count("\n") == 1 and "choose another folder" in done.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["small.txt"]
    assert (tmp_path / "small.txt").read_text() == "old"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_named_as_such(tmp_path: Path) -> None:
    with pytest.raises(OSError) as full, Path("/dev/full").open("wb", buffering=0) as device:
        device.write(b"x")
    assert write_error_message(full.value, tmp_path).startswith("There is no space left to write into '")


def test_results_are_as_readable_as_other_files(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("")
    write_files({"ours": b""}, tmp_path)
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_a_zip_of_nothing_is_a_zip() -> None:
    assert zipfile.ZipFile(io.BytesIO(zipped({}))).namelist() == []


@pytest.mark.parametrize("key", EXPORTS)
def test_every_format_can_be_stopped(key: str) -> None:
    masks = [box_mask((40, 60), left, 5, left + 4, 35) for left in range(0, 60, 6)]
    seg = drawn_result(np.zeros((40, 60, 3), np.uint8), ["a"], [(1, mask) for mask in masks])
    asked = 0

    def check() -> None:
        nonlocal asked
        asked += 1
        if asked > (10 if key in ("coco", "coco-polygons", "yolo", "geojson", "zip") else 0):
            raise ResourceError("This took too long.")

    with pytest.raises(ResourceError):
        export(seg, (key,), check=check)


@pytest.mark.parametrize(
    ("key", "parts"), [("overlay", 30), ("cutouts", 30), ("zip", 80), ("both arms", 260)]
)
def test_a_large_picture_is_made_in_parts_between_which_it_can_be_stopped(key: str, parts: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (800, 1000, 3), dtype=np.uint8)
    mask = box_mask((800, 1000), 0, 0, 1000, 800)
    seg, other = (drawn_result(image, ["a"], [(1, mask)], arm=arm) for arm in ("adapted", "vanilla"))

    def make(check: Callable[[], None]) -> object:
        if key == "both arms":
            return zip_comparison(compare(other, seg), check=check)
        return export(seg, (key,), check=check)

    asked = 0

    def check() -> None:
        nonlocal asked
        asked += 1
        if asked > parts:
            raise ResourceError("This took too long.")

    # Noise does not get smaller: 2.4 MB in parts of 64 KiB.
    with pytest.raises(ResourceError):
        make(check)


def test_an_export_needs_few_times_the_memory_of_its_photo() -> None:
    image = np.zeros((1500, 2000, 3), np.uint8)
    masks = [box_mask(image.shape[:2], 50 * i, 40 * i, 50 * i + 600, 40 * i + 500) for i in range(24)]
    seg = drawn_result(image, ["a", "b"], [(1 + i % 2, mask) for i, mask in enumerate(masks)])
    tracemalloc.start()
    try:
        export(seg, ("coco", "yolo", "geojson", "cutouts"))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 6 * image.nbytes
