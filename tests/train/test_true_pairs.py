"""Pairs from true masks: the same shards as mined ones, with fixed names."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ovseg_demo.errors import SettingsError
from train.core.checkpointing import ResumeError
from train.data.pair_folder import PairFolder
from train.data.shards import read_manifest, read_pairs
from train.data.sources import DataError
from train.evaluation.runner import evenly_spaced
from train.mining.precision import PrecisionSettings, precision
from train.true_pairs import TruePairSettings, main

# pycocotools and numpy 2: a matter between the two.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

BOXES = {1: ("cat", (10, 20, 60, 80)), 2: ("dog", (70, 10, 130, 100))}


@pytest.fixture
def truth(tmp_path: Path) -> tuple[Path, Path]:
    """Two photos with a cat and a dog, one crowd, one speck, and a photo that does not decode."""
    images = tmp_path / "images"
    images.mkdir()
    annotations = []
    for image in (1, 2):
        noise = np.random.default_rng(image).integers(0, 256, (120, 160, 3), dtype=np.uint8)
        Image.fromarray(noise).save(images / f"{image}.png")
        for category, (_, (left, top, right, bottom)) in BOXES.items():
            outline = [left, top, right, top, right, bottom, left, bottom]
            annotations.append(
                {"image_id": image, "category_id": category, "iscrowd": 0, "segmentation": [outline]}
            )
    speck = {"image_id": 1, "category_id": 1, "iscrowd": 0, "segmentation": [[1, 1, 4, 1, 4, 4, 1, 4]]}
    crowd = {"counts": [0, 120 * 160], "size": [120, 160]}
    annotations += [speck, {"image_id": 2, "category_id": 2, "iscrowd": 1, "segmentation": crowd}]
    (images / "3.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    annotations.append({**speck, "image_id": 3})
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "height": 120, "width": 160} for i in (1, 2, 3)],
        "categories": [{"id": i, "name": name} for i, (name, _) in BOXES.items()],
        "annotations": annotations,
    }
    file = tmp_path / "instances.json"
    file.write_text(json.dumps(content))
    return file, images


def settings(truth: tuple[Path, Path], out: Path, **others: object) -> TruePairSettings:
    return TruePairSettings(out=out, instances=truth[0], images=truth[1], image_format="png", **others)


def test_photos_held_out_are_the_ones_that_a_spread_takes(truth: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "pairs"
    main(settings(truth, out, hold_out=1))
    held = evenly_spaced(settings(truth, out).truth().photos, 1)[0].path.stem
    seen = {pair.facts.photo.split("/")[1] for pair in read_pairs(out)}
    assert held in {"1", "2"}  # the third does not decode
    assert seen == {"1", "2"} - {held}


def test_every_instance_becomes_a_pair_with_its_class_name(truth: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "pairs"
    main(settings(truth, out, per_shard=1))
    pairs = list(read_pairs(out))
    assert [pair.facts.noun for pair in pairs] == ["cat", "dog", "cat", "dog"]
    for pair, (_, box) in zip(pairs, [*BOXES.values()] * 2, strict=True):
        assert pair.facts.box == box
        assert pair.mask.all()
        assert pair.facts.score == 1.0
    photo = np.asarray(Image.open(truth[1] / "2.png"))
    assert np.array_equal(pairs[3].image, photo[10:100, 70:130])
    manifest = read_manifest(out)
    assert manifest["counts"] == {"photos": 3, "unreadable": 1, "pairs": 4, "different_nouns": 2}
    assert [one["photo"] for one in manifest["skipped"]] == ["3.png"]
    assert len(manifest["shards"]) == 2
    assert (out / "contact_sheet.png").is_file()


def test_training_reads_mined_and_true_pairs_together(truth: tuple[Path, Path], tmp_path: Path) -> None:
    main(settings(truth, tmp_path / "one"))
    main(settings(truth, tmp_path / "two", least_area=0.2))  # dogs alone
    folder = PairFolder(tmp_path / "one", tmp_path / "two")
    assert folder.nouns == ["cat", "dog"]
    assert [folder.nouns[i] for i in folder.noun_of] == ["cat", "dog", "cat", "dog", "dog", "dog"]
    first, again = folder.crop(1), folder.crop(4)
    assert np.array_equal(first[0], again[0])
    assert folder.digest != PairFolder(tmp_path / "one").digest


def test_large_photos_are_made_smaller(truth: tuple[Path, Path], tmp_path: Path) -> None:
    main(settings(truth, tmp_path / "pairs", max_side_px=80))
    facts = [pair.facts for pair in read_pairs(tmp_path / "pairs")]
    assert {one.photo_size for one in facts} == {(60, 80)}
    assert facts[0].box == (5, 10, 30, 40)


def test_true_pairs_are_right_and_swapped_names_are_not(truth: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "pairs"
    main(settings(truth, out))
    told = precision(PrecisionSettings(out, instances=truth[0]))
    assert told.startswith("4 of 4 pairs can be judged.")
    assert told.splitlines()[2].split() == ["100%", "4", "1.000", "100.0%", "100.0%"]
    content = json.loads(truth[0].read_text())
    for annotation in content["annotations"]:
        annotation["category_id"] = 3 - annotation["category_id"]  # cats are dogs
    (tmp_path / "wrong.json").write_text(json.dumps(content))
    told = precision(PrecisionSettings(out, instances=tmp_path / "wrong.json"))
    assert told.splitlines()[2].split()[-2:] == ["0.0%", "0.0%"]


def test_evaluation_sets_are_refused() -> None:
    with pytest.raises(DataError, match="'msrc21' is not to be trained on: choose coco-train or"):
        main(TruePairSettings(data_set="msrc21"))


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"coco_subset.*is missing: give the folder that holds it with --data"
    ):
        main(TruePairSettings(data=tmp_path, out=tmp_path / "out"))
    file = tmp_path / "instances.json"
    file.write_text("{}")
    with pytest.raises(DataError, match="needs its photos' folder: give --images"):
        main(TruePairSettings(instances=file, out=tmp_path / "out"))


def test_other_settings_in_the_same_folder_are_refused(truth: tuple[Path, Path], tmp_path: Path) -> None:
    main(settings(truth, tmp_path / "pairs"))
    with pytest.raises(ResumeError, match=r"made with least_area=0\.0 and not 0\.2.*another --out folder"):
        main(settings(truth, tmp_path / "pairs", least_area=0.2))


def test_no_empty_shards() -> None:
    with pytest.raises(SettingsError, match="--per-shard must be at least 1, not 0"):
        TruePairSettings(per_shard=0)
