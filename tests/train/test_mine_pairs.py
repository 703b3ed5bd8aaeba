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
from train.checkpointing import ResumeError
from train.data.sources import DataError
from train.data.truth import Segment, TruthPhoto
from train.mine_pairs import main
from train.mining.features import RegionFilter
from train.mining.pairing import (
    Lexicon,
    PairRules,
    PhotoView,
    match,
    nouns_of_photos,
    overlaps,
    usual_levels,
)
from train.mining.photos import file_photos, order_of, photo_id
from train.mining.precision import Judge
from train.mining.settings import MineSettings
from train.mining.synonyms import coco_category
from train.shards import Pair, PairFacts, read_manifest, read_pairs

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def settings(scenes: Path, small_clip: Path, tmp_path: Path) -> MineSettings:
    return MineSettings(
        work=tmp_path / "work",
        out=tmp_path / "pairs",
        captions=scenes / "captions.csv",
        images=scenes / "images",
        model=str(small_clip),
        proposal_size=256,
        chunk=2,
        shard_chunks=2,
        least_photos=1,
        usual_photos=2,
    )


@pytest.fixture(scope="session")
def mined(scenes: Path, small_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> MineSettings:
    """The scenes, mined once in one go."""
    folder = tmp_path_factory.mktemp("mined")
    settings = MineSettings(
        work=folder / "work",
        out=folder / "pairs",
        captions=scenes / "captions.csv",
        images=scenes / "images",
        model=str(small_clip),
        proposal_size=256,
        chunk=2,
        shard_chunks=2,
        least_photos=1,
        usual_photos=2,
    )
    main(settings)
    return settings


def content(folder: Path) -> dict[str, bytes]:
    """What must be equal between two runs: shards, manifest, contact sheet."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix != ".part"}


def seen_files(folder: Path) -> dict[str, tuple[int, int]]:
    return {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in folder.rglob("chunk_*")}


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
    with pytest.raises(ResumeError, match=named):
        main(replace(mined, **change))


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
    assert order_of(first) == order_of(file_photos(tmp_path / "said.csv", tmp_path, seed=0))
    assert order_of(first) != order_of(file_photos(tmp_path / "said.csv", tmp_path, seed=1))
    assert [photo_id(photo) for photo in first] != sorted(photo_id(photo) for photo in first)


# --- the rules -------------------------------------------------------------------------------------------


def lexicon(*nouns: str, scale: float = 20.0) -> Lexicon:
    """Every noun has an axis of its own, and none is more usual than another."""
    size = len(nouns)
    return Lexicon(nouns, np.eye(size, dtype=np.float32), scale, usual=np.zeros(size, np.float32))


def three_regions(rows: list[list[float]]) -> PhotoView:
    """Two regions that are nearly the same and one elsewhere, all as large and as good as each other."""
    array = np.array(rows, np.float32)
    array /= np.linalg.norm(array, axis=1, keepdims=True)
    same = np.full(3, 0.2, np.float32)
    return PhotoView(array, same, same, overlaps(three_masks()))


def three_masks() -> np.ndarray:
    masks = np.zeros((3, 20, 40), np.bool_)
    masks[0, :, :20] = masks[1, :, :19] = masks[2, 5:15, 25:35] = True
    return masks


@pytest.mark.parametrize("confidence", ["contrast", "bank", "regions", "both"])
def test_a_noun_goes_to_the_region_most_like_it(confidence: str) -> None:
    view = three_regions([[1, 0.1, 0.2], [0.9, 0.2, 0.3], [0.1, 1, 0.2]])
    words = lexicon("dog", "ball", "tree")
    found = match(view, ["dog", "ball"], words, PairRules(confidence=confidence))
    assert {c.noun: c.region for c in found} == {"dog": 0, "ball": 2}
    dog = next(c for c in found if c.noun == "dog")
    assert dog.cosine == pytest.approx(float(view.features[0, 0]))
    assert dog.margin == pytest.approx(float(view.features[0, 0] - view.features[2, 0]))
    assert 0 <= dog.confidence <= 1


def test_one_region_takes_one_noun_unless_asked_otherwise() -> None:
    words = lexicon("dog", "shirt", "tree")
    view = three_regions([[1, 0.9, 0], [0.9, 0.85, 0], [0, 0, 1]])
    assert len(match(view, ["dog", "shirt"], words, PairRules(unique=False))) == 2
    (only,) = match(view, ["dog", "shirt"], words, PairRules())
    assert only.noun == "dog"


def test_a_compound_and_its_head_are_not_both_taken_for_one_region() -> None:
    words = lexicon("tennis ball", "ball", "court")
    view = three_regions([[0.9, 0.8, 0], [0.1, 0.1, 1], [0.1, 0, 0.9]])
    found = match(view, ["tennis ball", "ball"], words, PairRules(unique=False))
    assert [c.noun for c in found] == ["tennis ball"]


def test_the_threshold_drops_unsure_pairs() -> None:
    words = lexicon("dog", "ball", scale=4.0)
    view = three_regions([[1, 0], [0.9, 0.1], [0.7, 0.7]])
    rules = PairRules(confidence="bank", threshold=0.7)
    assert [c.noun for c in match(view, ["dog", "ball"], words, rules)] == ["dog"]


def test_nothing_to_match_gives_nothing() -> None:
    words = lexicon("dog")
    nothing = np.zeros(0, np.float32)
    empty = PhotoView(np.zeros((0, 1), np.float32), nothing, nothing, np.zeros((0, 0), np.float32))
    assert match(empty, ["dog"], words, PairRules()) == []
    assert match(three_regions([[1.0], [1.0], [1.0]]), [], words, PairRules()) == []


def test_of_two_regions_as_alike_the_larger_and_better_is_preferred() -> None:
    words = lexicon("dog", "ball")
    view = three_regions([[1, 0], [0, 1], [1, 0]])
    large = replace(view, area=np.array([0.1, 0.2, 0.4], np.float32))
    good = replace(view, quality=np.array([0.9, 0.5, 0.5], np.float32))
    assert match(large, ["dog"], words, PairRules())[0].region == 2
    assert match(good, ["dog"], words, PairRules())[0].region == 0


def test_a_noun_that_every_photo_seems_to_show_is_trusted_less() -> None:
    words = lexicon("dog", "ball", "tree")
    photos = [three_regions([[1, 0.2, 0.1], [1, 0.3, 0.1], [0.9, 0.3, 0.2]]) for _ in range(4)]
    usual = usual_levels(photos, [["tree"], [], [], []], words, PairRules())
    assert usual[0] > usual[1]
    sure = {}
    for noun in ("dog", "ball"):
        view = three_regions([[1, 1, 0], [0, 0, 1], [0, 0, 1]])
        (found,) = match(view, [noun], replace(words, usual=usual), PairRules())
        sure[noun] = found.confidence
    assert sure["dog"] < sure["ball"]


def test_photos_whose_captions_have_the_noun_do_not_count_as_usual() -> None:
    words = lexicon("dog", "ball", "tree")
    full, empty = [[1.0, 0, 0]] * 3, [[0.0, 0, 1]] * 3
    views = [three_regions(full), three_regions(empty)]
    said = usual_levels(views, [["dog"], []], words, PairRules())
    unsaid = usual_levels(views, [[], []], words, PairRules())
    assert said[0] < unsaid[0]


def test_tiny_thin_and_whole_regions_are_passed_over() -> None:
    masks = np.zeros((5, 100, 100), np.bool_)
    masks[0, :] = True
    masks[1, :50, :50] = True
    masks[2, :3, :] = True
    masks[3, :4, :4] = True
    assert RegionFilter().usable(masks).tolist() == [1]
    assert RegionFilter().usable(masks[:0]).tolist() == []


def test_rare_nouns_are_passed_over() -> None:
    nouns, frequency = nouns_of_photos([["A dog and a zorb"], ["Two dogs", "A dog"], []], least_photos=2)
    assert nouns == [["dog"], ["dog"], []]
    assert frequency == {"dog": 2}


def test_overlap_is_intersection_over_union() -> None:
    iou = overlaps(three_masks())
    assert iou[0, 1] == pytest.approx(19 / 20)
    assert iou[0, 2] == 0
    assert np.allclose(np.diag(iou), 1)


# --- precision -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("noun", "category"),
    [
        ("woman", "person"),
        ("tennis player", "person"),
        ("bike", "bicycle"),
        ("dirt bike", "bicycle"),
        ("surfboard", "surfboard"),
        ("sofa", "couch"),
        ("sky", None),
    ],
)
def test_nouns_of_captions_mean_coco_categories(noun: str, category: str | None) -> None:
    names = ["person", "bicycle", "surfboard", "couch"]
    assert coco_category(noun, names) == category


def test_the_judge_knows_right_from_wrong() -> None:
    halves = np.zeros((2, 40, 80), np.bool_)
    halves[0, :, :40] = halves[1, :, 40:] = True
    segments = [Segment(halves[0], 0), Segment(halves[1], 0)]
    photo = TruthPhoto(Path("000007.jpg"), lambda: segments, lambda: np.zeros((40, 80), np.uint8))
    judge = Judge([photo], ["person", "dog"])

    def said(noun: str, box: tuple[int, int, int, int], name: str = "coco/000007") -> object:
        left, top, right, bottom = box
        facts = PairFacts(noun, 0.5, 0.2, 0.1, name, box, (20, 40), 0.1, 0.9)
        mask = np.ones((bottom - top, right - left), np.bool_)
        verdict = judge.verdict(Pair(np.zeros((*mask.shape, 3), np.uint8), mask, facts))
        return verdict and (verdict.strict, verdict.loose)

    assert said("man", (0, 0, 20, 20)) == (True, True)
    assert said("people", (0, 0, 40, 20)) == (False, True)
    assert said("man", (0, 0, 8, 8)) == (False, False)
    assert said("dog", (0, 0, 20, 20)) is None  # none in the photo's truth
    assert said("sky", (0, 0, 20, 20)) is None
    assert said("man", (0, 0, 20, 20), "coco/other") is None
