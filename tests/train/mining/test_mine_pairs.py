from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ovseg_demo.errors import SettingsError
from tests.train.synthetic_pairs import mine_settings
from train.core.checkpointing import ResumeError
from train.data.shards import read_manifest, read_pairs
from train.data.sources import DataError
from train.mine_pairs import main
from train.mining.pairing import (
    nouns_of_photos,
)
from train.mining.photos import file_photos, photo_id, photos_digest
from train.mining.settings import MineSettings

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def settings(scenes: Path, small_clip: Path, tmp_path: Path) -> MineSettings:
    return mine_settings(tmp_path, scenes, small_clip)


@pytest.fixture(scope="session")
def mined(scenes: Path, small_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> MineSettings:
    """The scenes, mined once in one go."""
    settings = mine_settings(tmp_path_factory.mktemp("mined"), scenes, small_clip)
    main(settings)
    return settings


def content(folder: Path) -> dict[str, bytes]:
    """What must be equal between two runs: shards, manifest, contact sheet."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix != ".part"}


def seen_files(folder: Path) -> dict[Path, tuple[int, int]]:
    return {p.relative_to(folder): (p.stat().st_ino, p.stat().st_mtime_ns) for p in folder.rglob("chunk_*")}


# --- the whole way ---------------------------------------------------------------------------------------


def test_each_noun_goes_to_one_region_of_its_own_photo(mined: MineSettings) -> None:
    pairs = list(read_pairs(mined.out))
    assert pairs
    nouns_of = {photo_id(photo): set() for photo in mined.photos()}
    for photo in mined.photos():
        nouns_of[photo_id(photo)] = set(nouns_of_photos([photo.captions], 1)[0][0])
    seen = [(pair.facts.photo, pair.facts.noun) for pair in pairs]
    assert len(set(seen)) == len(seen)
    assert all(noun in nouns_of[photo] for photo, noun in seen)


def test_crop_and_mask_are_the_box_of_the_region(mined: MineSettings) -> None:
    from ovseg_demo.imaging import load_image

    photos = {photo_id(photo): photo for photo in mined.photos()}
    for pair in read_pairs(mined.out):
        left, top, right, bottom = pair.facts.box
        assert pair.mask.shape == (bottom - top, right - left)
        for side in (pair.mask[0], pair.mask[-1], pair.mask[:, 0], pair.mask[:, -1]):
            assert side.any()
        height, width = pair.facts.photo_size
        assert pair.facts.area_fraction == pytest.approx(pair.mask.sum() / (height * width), abs=1e-5)
        there = load_image(photos[pair.facts.photo].path)[top:bottom, left:right]
        assert np.abs(there.astype(int) - pair.image).mean() < 15  # WebP, of noise


def test_the_manifest_counts_and_lists_what_was_skipped(mined: MineSettings) -> None:
    manifest = read_manifest(mined.out)
    counts = manifest["counts"]
    assert counts["photos"] == 5
    assert counts["unreadable"] == 1
    assert counts["pairs"] == len(list(read_pairs(mined.out))) == sum(manifest["nouns"].values())
    (skipped,) = manifest["skipped"]
    assert skipped["photo"] == "captions/broken"
    assert "damaged" in skipped["error"]
    assert manifest["model"]["weights"] == "vanilla"
    assert len(manifest["model"]["sha256"]) == 64
    assert manifest["proposals"]["size"] == "256"
    assert (mined.out / "contact_sheet.png").stat().st_size > 1000


def test_a_second_run_does_nothing(mined: MineSettings) -> None:
    before, files = content(mined.out), seen_files(mined.work)
    main(mined)
    assert content(mined.out) == before
    assert seen_files(mined.work) == files


def test_more_photos_may_be_asked_for_later(mined: MineSettings, settings: MineSettings) -> None:
    main(replace(settings, limit=2))
    assert read_manifest(settings.out)["counts"]["photos"] == 2
    first = seen_files(settings.work)
    main(replace(settings, limit=3))
    assert read_manifest(settings.out)["counts"]["photos"] == 3
    main(settings)
    assert content(settings.out) == content(mined.out)
    assert first.items() <= seen_files(settings.work).items()


def test_what_confidence_is_measured_against_stays_when_more_photos_come(
    mined: MineSettings, settings: MineSettings
) -> None:
    wanted = mined.baseline_photos + 2
    main(replace(settings, limit=mined.baseline_photos, baseline_photos=wanted))
    main(replace(settings, baseline_photos=wanted))
    assert content(settings.out) == content(mined.out)


@pytest.mark.slow
def test_two_processes_write_the_same(mined: MineSettings, settings: MineSettings) -> None:
    main(replace(settings, workers=2))
    assert content(settings.out) == content(mined.out)


def test_a_killed_run_goes_on_without_lost_or_doubled_work(
    mined: MineSettings, settings: MineSettings
) -> None:
    assert settings.captions is not None and settings.images is not None
    command = [sys.executable, "-m", "train.mine_pairs", "--work", str(settings.work), "--chunk", "2"]
    command += ["--stage", "propose", "--proposal-size", "256"]
    command += ["--captions", str(settings.captions), "--images", str(settings.images)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        first = settings.work / "proposals" / "chunk_000000.npz"
        end = time.monotonic() + 120
        while not first.exists() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.01)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    done = seen_files(settings.work)
    assert done
    main(settings)
    assert done.items() <= seen_files(settings.work).items()
    assert content(settings.out) == content(mined.out)


# --- bad input -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "named"),
    [({"density": "normal"}, "density=low"), ({"seed": 7}, "photos="), ({"chunk": 3}, "chunk=2")],
)
def test_going_on_with_other_masks_is_refused(
    mined: MineSettings, change: dict[str, object], named: str
) -> None:
    for stage in ("all", "pairs"):
        with pytest.raises(ResumeError, match=named):
            main(replace(mined, stage=stage, **change))


def test_pairs_of_other_masks_are_not_mixed(mined: MineSettings, settings: MineSettings) -> None:
    with pytest.raises(ResumeError, match=r"size=256 and not 320.*--out"):
        main(replace(settings, out=mined.out, proposal_size=320))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"threshold": 0.5}, "threshold=0.0 and not 0.5"),
        ({"captions_per_photo": 1}, "captions_per_photo=5 and not 1"),
    ],
)
def test_going_on_with_other_rules_is_refused(
    mined: MineSettings, change: dict[str, object], named: str
) -> None:
    with pytest.raises(ResumeError, match=f"{named}.*--out"):
        main(replace(mined, **change))


def test_pairs_without_proposals_say_what_to_do(settings: MineSettings) -> None:
    with pytest.raises(DataError, match="--stage propose"):
        main(replace(settings, stage="pairs"))


@pytest.mark.parametrize("change", [{"chunk": 0}, {"threshold": 1.5}, {"limit": -1}])
def test_settings_out_of_range_are_refused(settings: MineSettings, change: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match=next(iter(change))):
        replace(settings, **change)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "picture,text\na.jpg,A dog\n", "columns image and caption"),
        ("a.csv", "image,caption\na.jpg\n", "line 2"),
        ("a.csv", "image,caption\n", "no caption"),
        ("a.csv", "image,caption\na.jpg,A dog\na.png,A cat\n", "different names"),
        ("a.json", "{", "not JSON"),
        ("a.json", "[]", "COCO's form"),
        ("a.json", '{"images": [], "annotations": [{"image_id": 1, "caption": "A dog"}]}', "annotation 1"),
        ("a.json", '{"images": [{"id": 1}], "annotations": []}', "COCO's form"),
    ],
)
def test_malformed_captions_are_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        file_photos(tmp_path / name, tmp_path, seed=0)


def test_captions_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"image,caption\n\xff\xfe")
    with pytest.raises(DataError, match="UTF-8"):
        file_photos(tmp_path / "a.csv", tmp_path, seed=0)


def test_coco_json_and_csv_say_the_same(tmp_path: Path) -> None:
    rows = [("b.jpg", "A dog"), ("a.jpg", "A cat"), ("b.jpg", " Two dogs ")]
    (tmp_path / "said.csv").write_text("image,caption\n" + "".join(f"{i},{c}\n" for i, c in rows))
    (tmp_path / "coco").mkdir()
    numbers = {"a.jpg": 1, "b.jpg": 2}
    coco = {
        "images": [{"id": n, "file_name": name} for name, n in numbers.items()],
        "annotations": [{"image_id": numbers[i], "caption": c} for i, c in rows],
    }
    (tmp_path / "coco" / "said.json").write_text(json.dumps(coco))
    from_csv = file_photos(tmp_path / "said.csv", tmp_path, seed=3)
    assert from_csv == file_photos(tmp_path / "coco" / "said.json", tmp_path, seed=3)
    assert {p.path.name: p.captions for p in from_csv} == {
        "a.jpg": ("A cat",),
        "b.jpg": ("A dog", "Two dogs"),
    }


def test_the_order_is_random_and_depends_on_the_seed_alone(tmp_path: Path) -> None:
    (tmp_path / "said.csv").write_text("image,caption\n" + "".join(f"{n:02d}.jpg,A dog\n" for n in range(40)))
    first = file_photos(tmp_path / "said.csv", tmp_path, seed=0)
    assert photos_digest(first) == photos_digest(file_photos(tmp_path / "said.csv", tmp_path, seed=0))
    assert photos_digest(first) != photos_digest(file_photos(tmp_path / "said.csv", tmp_path, seed=1))
    assert [photo_id(photo) for photo in first] != sorted(photo_id(photo) for photo in first)
