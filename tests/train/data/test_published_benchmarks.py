"""Published folder layouts are read as they are, and what is missing in one is said exactly."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_mat_labels import mat_file

from ovseg_demo.vocabulary import Vocabulary
from train.data.benchmarks import BENCHMARK_TABLE, BENCHMARKS, cityscapes_values, stuff_values
from train.data.folders import NOTHING, read_folders
from train.data.sources import DataError
from train.data.truth import TruthSet
from train.evaluation.runner import class_vocabulary

# pycocotools has not caught up with NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

PHOTO = np.full((4, 6, 3), 128, dtype=np.uint8)


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def labels(*values: int, dtype: type = np.uint8) -> np.ndarray:
    """A 4 x 6 map with one value a column; the last value fills up."""
    row = [*values, *[values[-1]] * (6 - len(values))]
    return np.tile(np.array(row, dtype=dtype), (4, 1))


def read_row(truth: TruthSet) -> list[int | None]:
    """The classes along the first row of the only photo, None = ignored."""
    (photo,) = truth.photos
    assert photo.read().shape == (4, 6, 3)
    return [None if value == NOTHING else int(value) for value in photo.read_labels()[0]]


# Per benchmark and layout: photo, label file, values in the file, classes they stand for.
LAYOUTS = [
    ("ade20k-150", "ADEChallengeData2016/images/validation/ADE_val_1.jpg",
     "ADEChallengeData2016/annotations/validation/ADE_val_1.png", (0, 1, 150), (None, 0, 149)),
    ("ade20k-150", "ADEChallengeData2016/images/validation/ADE_val_1.jpg",
     "ADEChallengeData2016/annotations_detectron2/validation/ADE_val_1.png", (255, 0, 149), (None, 0, 149)),
    ("ade20k-847", "ADE20K_2021_17_01/images_detectron2/validation/ADE_val_1.jpg",
     "ADE20K_2021_17_01/annotations_detectron2/validation/ADE_val_1.tif", (65535, 0, 846), (None, 0, 846)),
    ("ade20k-847", "ADE20K_2021_17_01/images/ADE/validation/urban/street/ADE_val_1.jpg",
     "ADE20K_2021_17_01/annotations_detectron2/validation/ADE_val_1.tif", (65535, 300), (None, 300)),
    ("context-59", "VOCdevkit/VOC2010/images/val/a.jpg",
     "VOCdevkit/VOC2010/annotations_detectron2/pc59_val/a.png", (255, 0, 58), (None, 0, 58)),
    ("context-59", "VOC2010/JPEGImages/a.jpg",
     "VOC2010/annotations_detectron2/pc59_val/a.png", (255, 0, 58), (None, 0, 58)),
    ("context-59", "pcontext/val/image/a.jpg", "pcontext/val/label/a.png", (255, 7), (None, 7)),
    ("context-459", "VOCdevkit/VOC2010/JPEGImages/a.jpg",
     "VOCdevkit/VOC2010/annotations_detectron2/pc459_val/a.tif", (65535, 0, 255, 458), (None, 0, 255, 458)),
    ("voc-20", "VOCdevkit/VOC2012/images_detectron2/val/a.jpg",
     "VOCdevkit/VOC2012/annotations_detectron2/val/a.png", (255, 0, 19), (None, 0, 19)),
    ("coco-stuff-171", "coco/val2017/1.jpg", "coco/stuffthingmaps_detectron2/val2017/1.png",
     (255, 0, 170), (None, 0, 170)),
    ("coco-stuff-171", "coco/val2017/1.jpg", "coco/stuffthingmaps/val2017/1.png",
     (255, 0, 12, 89, 91, 181), (None, 0, 11, 79, 80, 170)),
    ("coco-stuff-171", "coco_stuff164k/images/val2017/1.jpg",
     "coco_stuff164k/annotations/val2017/1_labelTrainIds.png", (255, 170), (None, 170)),
    ("cityscapes-19", "cityscapes/leftImg8bit/val/bonn/bonn_1_leftImg8bit.png",
     "cityscapes/gtFine/val/bonn/bonn_1_gtFine_labelIds.png", (0, 7, 26, 33, 29), (None, 0, 13, 18, None)),
    ("cityscapes-19", "cityscapes/leftImg8bit/val/bonn/bonn_1_leftImg8bit.png",
     "cityscapes/gtFine/val/bonn/bonn_1_gtFine_labelTrainIds.png", (255, 0, 18), (None, 0, 18)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "photo", "label", "values", "classes"), LAYOUTS, ids=[f"{row[0]} {row[2]}" for row in LAYOUTS]
)
def test_a_published_layout_is_read(
    tmp_path: Path,
    name: str,
    photo: str,
    label: str,
    values: tuple[int, ...],
    classes: tuple[int | None, ...],
) -> None:
    save(tmp_path / photo, PHOTO)
    save(tmp_path / label, labels(*values, dtype=np.uint16 if label.endswith(".tif") else np.uint8))
    truth = BENCHMARKS[name](tmp_path)
    assert tuple(read_row(truth)[: len(classes)]) == classes
    assert len(truth.classes) == int(name.rsplit("-", 1)[1])
    shown = {segment.class_index for segment in truth.photos[0].read_segments()}
    assert shown == {index for index in classes if index is not None}


def test_pascal_voc_as_downloaded_takes_its_own_list_and_palette(tmp_path: Path) -> None:
    base = tmp_path / "VOCdevkit" / "VOC2012"
    for stem in ("a", "b"):  # b is not in the list
        save(base / "JPEGImages" / f"{stem}.jpg", PHOTO)
        picture = Image.fromarray(labels(0, 1, 20, 255)).convert("P")
        picture.putdata(labels(0, 1, 20, 255).ravel().tolist())
        (base / "SegmentationClass").mkdir(exist_ok=True)
        picture.save(base / "SegmentationClass" / f"{stem}.png")
    (base / "ImageSets" / "Segmentation").mkdir(parents=True)
    (base / "ImageSets" / "Segmentation" / "val.txt").write_text("a\n")
    truth = BENCHMARKS["voc-20"](tmp_path)
    assert read_row(truth)[:4] == [None, 0, 19, None]
    assert (truth.classes[0], truth.classes[19]) == ("aeroplane", "tv monitor")


@pytest.mark.parametrize("name", ["context-59", "context-459"])
def test_pascal_context_as_downloaded_is_read_from_matlab_files(tmp_path: Path, name: str) -> None:
    base = tmp_path / "VOCdevkit" / "VOC2010"
    names = (Path(__file__).parents[3] / "train/data/class_lists/context-459.txt").read_text().splitlines()
    names = [line for line in names if not line.startswith("#")]
    save(base / "JPEGImages" / "a.jpg", PHOTO)
    (base / "trainval").mkdir()
    ids = {own: number for number, own in enumerate(names, start=1)}
    own = labels(0, ids["wood"], ids["accordion"], ids["aeroplane"], dtype=np.uint16)
    (base / "trainval" / "a.mat").write_bytes(mat_file(own))
    (base / "pascalcontext_val.txt").write_text("a\n")
    with pytest.raises(DataError, match=r"labels\.txt is missing"):
        BENCHMARKS[name](tmp_path)
    (base / "labels.txt").write_text("".join(f"{number}: {own}\n" for own, number in ids.items()))
    truth = BENCHMARKS[name](tmp_path)
    row = read_row(truth)
    shown = [None if index is None else truth.classes[index] for index in row[:4]]
    assert shown == [None, "wood", "accordion" if name == "context-459" else None, "aeroplane"]


def test_every_class_list_has_its_number_of_classes() -> None:
    for benchmark in BENCHMARK_TABLE:
        classes = benchmark.classes()
        assert len(classes) == int(benchmark.name.rsplit("-", 1)[1])
        assert all(item.synonyms[0] == item.name for item in classes)


def test_ade20k_150_is_scored_by_its_published_names(tmp_path: Path) -> None:
    base = tmp_path / "ADEChallengeData2016"
    save(base / "images" / "validation" / "1.jpg", PHOTO)
    save(base / "annotations" / "validation" / "1.png", labels(1))
    truth = BENCHMARKS["ade20k-150"](tmp_path)
    assert (truth.classes[6], truth.classes[8]) == ("road, route", "window")
    # Both lists have the same order: nearly every class shares a word.
    preset = Vocabulary.preset("ade20k-150")
    shared = [
        set(name.split(", ")) & set(item.synonyms) for name, item in zip(truth.classes, preset, strict=True)
    ]
    assert sum(map(bool, shared)) > 140
    for synonyms in (False, True):
        assert len(class_vocabulary(truth, synonyms=synonyms)) == 150


def test_own_ids_of_coco_stuff_and_cityscapes_cover_their_classes_once() -> None:
    for values, count in ((stuff_values(), 171), (cityscapes_values(), 19)):
        assert sorted(value for value in values.values() if value != NOTHING) == list(range(count))


def test_a_missing_folder_is_named_with_what_to_do(tmp_path: Path) -> None:
    for name in BENCHMARKS:
        with pytest.raises(DataError, match="--data") as error:
            BENCHMARKS[name](tmp_path)
        assert str(tmp_path) in str(error.value)


def test_the_missing_part_of_a_folder_is_named(tmp_path: Path) -> None:
    base = tmp_path / "ADEChallengeData2016"
    save(base / "images" / "validation" / "1.jpg", PHOTO)
    with pytest.raises(
        DataError, match="annotations_detectron2/validation or annotations/validation is missing"
    ):
        BENCHMARKS["ade20k-150"](tmp_path)
    (base / "annotations" / "validation").mkdir(parents=True)
    with pytest.raises(DataError, match="There is no label file"):
        BENCHMARKS["ade20k-150"](tmp_path)
    save(base / "annotations" / "validation" / "1.png", labels(1))
    save(base / "annotations" / "validation" / "2.png", labels(1))
    with pytest.raises(DataError, match=r"images/validation has no photo for '2'"):
        BENCHMARKS["ade20k-150"](tmp_path)
    save(base / "images" / "validation" / "2.jpg", PHOTO)
    assert len(BENCHMARKS["ade20k-150"](tmp_path).photos) == 2


def test_photos_are_missing_where_only_truth_is_there(tmp_path: Path) -> None:
    save(tmp_path / "ADEChallengeData2016" / "annotations" / "validation" / "1.png", labels(1))
    with pytest.raises(DataError, match="not complete: images/validation is missing there"):
        BENCHMARKS["ade20k-150"](tmp_path)


def test_a_list_that_names_a_lost_photo_is_an_error(tmp_path: Path) -> None:
    base = tmp_path / "VOC2012"
    save(base / "JPEGImages" / "a.jpg", PHOTO)
    save(base / "SegmentationClass" / "a.png", labels(1))
    with pytest.raises(DataError, match=r"ImageSets/Segmentation/val\.txt is missing"):
        BENCHMARKS["voc-20"](tmp_path)
    (base / "ImageSets" / "Segmentation").mkdir(parents=True)
    (base / "ImageSets" / "Segmentation" / "val.txt").write_text("a\nb\nc\n")
    with pytest.raises(DataError, match="no label map for 'b' and 1 more"):
        BENCHMARKS["voc-20"](tmp_path)


def test_the_benchmarks_own_folder_may_be_given(tmp_path: Path) -> None:
    base = tmp_path / "ADEChallengeData2016"
    save(base / "images" / "validation" / "1.jpg", PHOTO)
    save(base / "annotations" / "validation" / "1.png", labels(1))
    assert len(BENCHMARKS["ade20k-150"](base).photos) == 1


def test_labels_of_another_data_set_are_noticed(tmp_path: Path) -> None:
    base = tmp_path / "ADEChallengeData2016"
    save(base / "images" / "validation" / "1.jpg", PHOTO)
    path = save(base / "annotations" / "validation" / "1.png", labels(1, 200))
    (photo,) = BENCHMARKS["ade20k-150"](tmp_path).photos
    with pytest.raises(DataError, match="value 200"):
        photo.read_labels()
    save(path, PHOTO)
    with pytest.raises(DataError, match="colour picture"):
        photo.read_labels()
    path.write_bytes(b"no picture")
    with pytest.raises(DataError, match="cannot be read"):
        photo.read_labels()


# --- COCO ------------------------------------------------------------------------------------------------


def test_official_panoptic_truth_is_read(shared: Path) -> None:
    truth = BENCHMARKS["coco-panoptic"](shared)
    assert len(truth.photos) == 2
    assert (len(truth.classes), truth.classes[0], truth.classes[132]) == (133, "person", "rug")
    record = json.loads((shared / "coco_subset/val2017_panoptic/panoptic.json").read_text())
    index = {c["id"]: i for i, c in enumerate(record["categories"])}
    for photo, annotation in zip(truth.photos, record["annotations"], strict=True):
        found = photo.read_labels()
        assert found.shape == photo.read().shape[:2]
        infos = annotation["segments_info"]
        for category in {info["category_id"] for info in infos}:
            area = sum(info["area"] for info in infos if info["category_id"] == category)
            assert (found == index[category]).sum() == area
        assert (found == NOTHING).sum() == found.size - sum(info["area"] for info in infos)
        segments = photo.read_segments()
        areas = [info["area"] for info in infos if not info["iscrowd"]]
        assert [int(segment.mask.sum()) for segment in segments] == areas


def panoptic_folder(root: Path) -> Path:
    """One drawn photo in COCO's own layout: a person, a crowd of persons, grass, a rest."""
    coco = root / "coco"
    save(coco / "val2017" / "000000000001.jpg", PHOTO)
    ids = np.array([[7, 7, 300, 300, 70000, 0]] * 4)
    colours = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
    save(coco / "panoptic_val2017" / "000000000001.png", colours)
    numbers = [n for n in range(1, 201) if n not in range(1, 68)]  # 133 of them, 193 among them
    record = {
        "images": [{"id": 1, "file_name": "000000000001.jpg", "height": 4, "width": 6}],
        "categories": [{"id": n, "name": str(n), "isthing": 1} for n in numbers],
        "annotations": [
            {
                "image_id": 1,
                "file_name": "000000000001.png",
                "segments_info": [
                    {"id": 7, "category_id": 68, "iscrowd": 0},
                    {"id": 300, "category_id": 68, "iscrowd": 1},
                    {"id": 70000, "category_id": 193, "iscrowd": 0},
                ],
            }
        ],
    }
    (coco / "annotations").mkdir()
    (coco / "annotations" / "panoptic_val2017.json").write_text(json.dumps(record))
    return coco


def test_panoptic_crowds_are_labelled_but_are_no_regions(tmp_path: Path) -> None:
    panoptic_folder(tmp_path)
    truth = BENCHMARKS["coco-panoptic"](tmp_path)
    assert read_row(truth) == [0, 0, 0, 0, 125, None]
    segments = truth.photos[0].read_segments()
    assert [(segment.class_index, int(segment.mask.sum())) for segment in segments] == [(0, 8), (125, 4)]


def test_a_lost_panoptic_picture_is_named(tmp_path: Path) -> None:
    coco = panoptic_folder(tmp_path)
    (coco / "panoptic_val2017" / "000000000001.png").unlink()
    with pytest.raises(DataError, match=r"000000000001\.png"):
        BENCHMARKS["coco-panoptic"](tmp_path)


def test_instances_ignore_crowds_and_unlabelled_pixels(tmp_path: Path) -> None:
    coco = tmp_path / "coco"
    save(coco / "val2017" / "1.jpg", PHOTO)
    column = [0.0, 0.0, 1.0, 0.0, 1.0, 4.0, 0.0, 4.0]  # the first column as a polygon
    crowd = {"counts": [8, 8, 8], "size": [4, 6]}  # column by column: third and fourth
    record = {
        "images": [{"id": 1, "file_name": "1.jpg", "height": 4, "width": 6}],
        "categories": [{"id": 3, "name": "car"}, {"id": 1, "name": "person"}],
        "annotations": [
            {"image_id": 1, "category_id": 3, "iscrowd": 0, "segmentation": [column]},
            {"image_id": 1, "category_id": 1, "iscrowd": 1, "segmentation": crowd},
        ],
    }
    (coco / "annotations").mkdir()
    (coco / "annotations" / "instances_val2017.json").write_text(json.dumps(record))
    truth = BENCHMARKS["coco-instances"](tmp_path)
    assert truth.classes == ("person", "car")
    (photo,) = truth.photos
    assert photo.read_labels()[0].tolist() == [1, *[truth.ignore] * 5]
    assert photo.uncertain == {0}


def test_instances_of_the_subset_are_read(shared: Path) -> None:
    truth = BENCHMARKS["coco-instances"](shared)
    assert (len(truth.classes), len(truth.photos)) == (80, 146)
    photo = truth.photos[0]
    assert photo.read_labels().shape == photo.read().shape[:2]


# --- any folders -----------------------------------------------------------------------------------------


def own_folders(root: Path) -> tuple[Path, Path, Path]:
    for part in ("north", "south"):  # the same name in two subfolders
        save(root / "photos" / part / "1.jpg", PHOTO)
        save(root / "truth" / part / "1.png", labels(0, 1, 9) if part == "north" else labels(1))
    (root / "names.txt").write_text("# two classes\ngrass | lawn\nsky\n")
    return root / "photos", root / "truth", root / "names.txt"


def test_any_folders_can_be_evaluated(tmp_path: Path) -> None:
    truth = read_folders(*own_folders(tmp_path), ignore=9)
    assert truth.classes == ("grass", "sky")
    assert truth.synonyms == (("grass", "lawn"), ("sky",))
    north, south = truth.photos
    assert (north.path.parent.name, south.path.parent.name) == ("north", "south")
    assert north.read_labels()[0].tolist() == [0, 1, NOTHING, NOTHING, NOTHING, NOTHING]
    assert set(south.read_labels().ravel()) == {1}


def test_what_is_wrong_with_own_folders_is_said(tmp_path: Path) -> None:
    photos, truth, names = own_folders(tmp_path)
    with pytest.raises(DataError, match="given as --labels, is missing"):
        read_folders(photos, tmp_path / "nowhere", names, ignore=9)
    with pytest.raises(DataError, match=r"class list .* is missing"):
        read_folders(photos, truth, tmp_path / "none.txt", ignore=9)
    with pytest.raises(DataError, match="value 9"):
        read_folders(photos, truth, names, ignore=255).photos[0].read_labels()
    names.write_text("grass\nsky\nlawn | Grass\n")
    with pytest.raises(DataError, match="twice"):
        read_folders(photos, truth, names, ignore=9)
    names.write_text("# nothing\n")
    with pytest.raises(DataError, match="is empty"):
        read_folders(photos, truth, names, ignore=9)
