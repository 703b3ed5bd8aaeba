"""Named regions: what is read, what inherits, what is never trained on, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from ovseg_demo.errors import SettingsError
from tests.train.named_scenes import (
    BALL,
    SIZE,
    box_mask,
    photo_row,
    region,
    scene_regions,
    write_named_scenes,
    write_rows,
)
from train.data.named_regions import (
    HELD_OUT_FOLD,
    held_out_photos,
    inherit_names,
    photo_key,
    read_named_regions,
    training_regions,
)
from train.data.sources import DataError, photo_at, read_sources

SHARED = Path(__file__).resolve().parents[4] / "shared"
needs_data = pytest.mark.skipif(
    not (SHARED / "named_regions").is_dir(), reason="the data folder with named_regions is not here"
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_named_scenes(tmp_path)


def test_names_parts_unclear_and_unnamed_regions_are_told_apart(root: Path) -> None:
    photo = read_named_regions(root)[1]
    sky, ball, copy, band, unclear, rest = photo.regions
    assert (photo.fold, photo.size, photo.read().shape) == (1, SIZE, (*SIZE, 3))
    assert (sky.names, sky.part_of) == (("sky",), ())
    assert ball.names == ("red ball", "ball")
    assert (band.names, band.part_of) == (("band",), ("ball",))
    assert (unclear.names, copy.names, rest.names) == ((), None, None)
    assert photo.named() == [sky, ball, band]
    assert np.array_equal(ball.mask(), box_mask(BALL))


def test_unnamed_proposals_that_meet_a_named_one_inherit_its_names(root: Path) -> None:
    photo = read_named_regions(root)[0]
    after = inherit_names(photo, 0.85)
    assert [one.inherited for one in after.regions] == [False, False, True, False, False, False]
    assert after.regions[2].names == ("red ball", "ball")
    assert np.array_equal(after.regions[2].mask(), photo.regions[2].mask())
    assert inherit_names(photo, 0.99) == photo  # they meet by 39 / 40
    assert inherit_names(photo, 1.0) == photo


def test_fold_0_is_refused_in_training(root: Path) -> None:
    assert [photo.fold for photo in training_regions(root)] == [1, 2, 3, 4]
    assert [photo.fold for photo in training_regions(root, (2, 3))] == [2, 3]
    for folds in ((0,), (3, 0, 1), tuple(range(10))):
        with pytest.raises(SettingsError, match=r"Fold 0 .* never trained on: give folds from 1 to 9"):
            training_regions(root, folds)
    for folds in ((), (10,)):
        with pytest.raises(SettingsError, match="folds 1 to 9"):
            training_regions(root, folds)


def test_held_out_photos_are_known_under_both_of_their_folders(root: Path) -> None:
    held = held_out_photos(root)
    assert held == {"coco/0000.png"}
    assert photo_key(root / "coco_subset" / "train2017" / "images" / "0000.png") in held
    assert photo_key(root / "flickr8k" / "images" / "0000.png") not in held
    assert held_out_photos(root / "coco_captions") == frozenset()  # no named regions there


def line_of(**changes: Any) -> dict[str, Any]:
    return photo_row("coco_captions/images/0001.png", 1, scene_regions(1)) | changes


def test_what_is_not_as_the_reader_expects_is_told_with_file_line_and_photo(root: Path) -> None:
    where = r"regions\.jsonl, line 2, photo .coco_captions/images/0001\.png."
    bad_region = [region(box_mask(BALL), names=["ball"], colour="red")]
    cases = [
        (line_of(author="me"), f"{where} has the unknown field .author.; known are fold, photo"),
        (line_of(regions=bad_region), f"{where} has the unknown field .colour.; known are names"),
        (line_of(regions=[region(box_mask(BALL), names="ball")]), f"{where} cannot be understood"),
        (line_of(size=[10]), f"{where} cannot be understood"),
        ({k: v for k, v in line_of().items() if k != "size"}, f"{where} lacks 'size'"),
        (line_of(photo="coco_captions/images/gone.png"), "line 2, photo .*gone.png.*gone.png is missing"),
    ]
    for row, message in cases:
        write_rows(root, [photo_row("coco_captions/images/0000.png", 0, []), row])
        with pytest.raises(DataError, match=message):
            read_named_regions(root)
    for text, message in (("{", r"line 1 is not JSON"), ("[1]", "line 1 is not a JSON object")):
        (root / "named_regions" / "regions.jsonl").write_text(text)
        with pytest.raises(DataError, match=message):
            read_named_regions(root)
    (root / "named_regions" / "regions.jsonl").unlink()
    with pytest.raises(DataError, match="is missing: give the folder that holds named_regions with --data"):
        read_named_regions(root)


def test_a_code_that_does_not_fit_the_photo_is_told_before_it_is_decoded(root: Path) -> None:
    large = box_mask(BALL, (SIZE[0], SIZE[1] + 1))
    for code, message in (
        (region(large)["rle"], r"covers 12,384 pixels, and the photo has 128 x 96 = 12,288"),
        ("", "is damaged"),
        ("a~", "is damaged"),
        ("PPPPPPPPPPPPPPPPPPPPPP", "is damaged"),
    ):
        write_rows(root, [line_of(regions=[{"rle": code, "quality": 1, "names": ["ball"]}, region(large)])])
        photo = read_named_regions(root)[0]
        with pytest.raises(DataError, match=rf"line 1, photo .*0001\.png.*{message}"):
            photo.regions[0].mask()
        with pytest.raises(DataError, match="the run-length code of a region"):
            inherit_names(photo)


def test_a_photo_of_another_size_than_its_regions_is_refused(root: Path) -> None:
    write_rows(root, [line_of(size=[64, 48], regions=[])])
    with pytest.raises(DataError, match="is 128 x 96 and its named regions are of a photo of 64 x 48"):
        read_named_regions(root)[0].read()


def test_masks_are_those_that_cocos_own_code_was_made_of(root: Path) -> None:
    photo = read_named_regions(root)[1]
    rng = np.random.default_rng(0)
    masks = [rng.random(rng.integers(1, 70, 2)) < share for share in np.linspace(0, 1, 40)]
    for mask in (*masks, np.zeros((480, 640), bool), np.ones((480, 640), bool)):
        code = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
        decoded = replace(photo.regions[0], run_lengths=code, size=mask.shape).mask()
        assert np.array_equal(decoded, mask) and decoded.dtype == bool


@needs_data
def test_the_real_file_is_read_and_its_squashed_photos_have_their_own_aspect() -> None:
    photos = read_named_regions(SHARED, (HELD_OUT_FOLD,))
    with (SHARED / "named_regions" / "regions.jsonl").open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    assert len(photos) == sum(row["fold"] == 0 for row in rows)
    flickr = next(photo for photo in photos if photo.name.startswith("flickr8k/"))
    assert flickr.source.aspect is not None
    for photo in (flickr, photos[0]):
        assert photo.read().shape == (*photo.size, 3)
        assert all(one.mask().shape == photo.size for one in photo.named())
    assert photo_at(SHARED, flickr.name).read().shape == (*flickr.size, 3)
    held = held_out_photos(SHARED)
    keys = [photo_key(photo.path) for photo in read_sources(SHARED)]
    assert len(held & set(keys)) == len(held) == len(photos)
