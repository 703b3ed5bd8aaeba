"""Pairs from named regions: several right names, nothing of fold 0, nothing unclear."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ovseg_demo.errors import SettingsError
from tests.train.named_scenes import BALL, BAND, SHEET, box_mask, write_named_scenes
from train.data.named_regions import refuse_held_out
from train.data.pair_folder import PairFolder
from train.data.shards import read_manifest, read_pairs
from train.data.sources import DataError, coco_captions
from train.joint.captions import captioned_photos
from train.mining.settings import MineSettings
from train.named_pairs import NamedPairSettings, main


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_named_scenes(tmp_path / "data")


def settings(root: Path, out: Path, **others: object) -> NamedPairSettings:
    return NamedPairSettings(out=out, data=root, image_format="png", **others)  # type: ignore[arg-type]


def test_every_named_region_becomes_a_pair_with_all_its_names(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "pairs"
    main(settings(root, out, folds=(1, 2)))
    facts = [pair.facts for pair in read_pairs(out)]
    ball = ("red ball", ("ball",), ())
    assert [(one.noun, one.synonyms, one.part_of) for one in facts] == [
        ("sky", (), ()), ball, ball, ("band", (), ("ball",)),
        ("blue sky", ("sky",), ()), ball, ball, ("band", (), ("ball",)),
    ]  # fmt: skip
    assert [one.photo_path for one in facts] == [
        f"coco_captions/images/000{fold}.png" for fold in (1, 2) for _ in range(4)
    ]
    for pair, window in zip(list(read_pairs(out))[:4:1], (SHEET, BALL, None, BAND), strict=True):
        if window is not None:
            left, top, right, bottom = pair.facts.box
            whole = np.zeros(pair.facts.photo_size, dtype=bool)
            whole[top:bottom, left:right] = pair.mask
            assert np.array_equal(whole, box_mask(window))
    manifest = read_manifest(out)
    assert manifest["counts"] == {"photos": 2, "unreadable": 0, "pairs": 8, "different_nouns": 4}
    assert manifest["sources"] == {"named_regions": 2}
    assert (out / "contact_sheet.png").is_file()
    assert PairFolder(out).nouns == ["ball", "band", "blue sky", "red ball", "sky"]


def test_inheriting_can_be_left_out(root: Path, tmp_path: Path) -> None:
    main(settings(root, tmp_path / "pairs", inherit=1.0))
    assert len(PairFolder(tmp_path / "pairs")) == 4 * 3
    with pytest.raises(SettingsError, match="--inherit must be above 0 and at most 1, not 0"):
        settings(root, tmp_path, inherit=0.0)


def test_fold_0_never_becomes_a_pair(root: Path, tmp_path: Path) -> None:
    main(settings(root, tmp_path / "pairs"))
    paths = {place.path for place in PairFolder(tmp_path / "pairs").photos}
    assert paths == {f"coco_captions/images/000{fold}.png" for fold in (1, 2, 3, 4)}
    with pytest.raises(SettingsError, match="Fold 0"):
        main(settings(root, tmp_path / "other", folds=(0, 1)))
    assert not (tmp_path / "other").exists()


def test_photos_of_fold_0_are_left_out_of_mining_and_of_caption_batches(root: Path) -> None:
    everyone = {photo.path.name for photo in coco_captions(root)}
    assert everyone == {f"000{fold}.png" for fold in range(5)}
    mined = MineSettings(data=root, sources=("coco_captions",))
    assert {photo.path.name for photo in mined.photos()} == everyone - {"0000.png"}
    with_fold_0 = MineSettings(data=root, sources=("coco_captions",), leave_out_fold_0=False)
    assert {photo.path.name for photo in with_fold_0.photos()} == everyone
    captioned = captioned_photos(root, ("coco_captions",))
    assert {photo.path.name for photo in captioned} == everyone - {"0000.png"}
    with pytest.raises(SettingsError, match=r"--captions knows flickr8k, .*, not 'flickr'"):
        captioned_photos(root, ("flickr",))


def test_a_pair_of_fold_0_is_refused_in_training(root: Path) -> None:
    refuse_held_out(["coco_captions/images/0001.png", ""], root)
    with pytest.raises(DataError, match=r"hold coco_subset/val/images/0000.png of fold 0 .* never"):
        refuse_held_out(["coco_captions/images/0001.png", "coco_subset/val/images/0000.png"], root)


def test_a_photo_that_does_not_decode_is_passed_over_and_told(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "coco_captions" / "images" / "0002.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    main(settings(root, tmp_path / "pairs", folds=(1, 2)))
    assert read_manifest(tmp_path / "pairs")["counts"]["unreadable"] == 1
    assert "skipped coco_captions/images/0002.png" in capsys.readouterr().out
