"""The evaluator walks through the demo itself, on equal terms for every arm, and reports what it did."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from PIL import Image
from torchmetrics.classification import MulticlassJaccardIndex

from ovseg_demo.errors import SettingsError
from ovseg_demo.progress import run_to_end
from ovseg_demo.proposals import Proposals
from ovseg_demo.segmenter import Segmenter
from train.absent_words import absent_words
from train.core.options import parse_options
from train.data.data_sets import read_data_set
from train.data.folders import NOTHING, read_folders
from train.data.sources import DataError
from train.data.truth import TRUTH_SETS, TruthSet
from train.evaluate import chosen_data_set, evaluate
from train.evaluation.absent_words import AbsentWordsSettings, make_question
from train.evaluation.region_accuracy import RegionEvaluator
from train.evaluation.report import make_report
from train.evaluation.runner import (
    EvaluationCounts,
    Evaluator,
    EvaluatorSettings,
    arm_sources,
    class_vocabulary,
    evenly_spaced,
)
from train.evaluation.settings import EvaluateSettings
from train.zeroshot import ZeroshotSettings, zeroshot

# pycocotools has not caught up with NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

COLOURS = {"grass": (40, 160, 60), "sky": (120, 180, 240), "brick": (170, 60, 40)}


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two tiny CLIPs with random weights and mask prompts, as files."""
    folder = tmp_path_factory.mktemp("models")
    paths = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        vision = CLIPVisionCfg(layers=3, width=128, patch_size=4, image_size=16)
        text = CLIPTextCfg(context_length=77, vocab_size=49408, width=64, heads=1, layers=1)
        weights = CLIP(32, vision, text, quick_gelu=True).state_dict()
        paths.append(folder / f"clip{seed}.pt")
        torch.save({**weights, "visual.mask_embedding": torch.randn(3, 16, 128)}, paths[-1])
    return paths[0], paths[1]


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    """Six drawn photos of stripes with their truth; the last column is not labelled."""
    random = np.random.default_rng(0)
    for number in range(6):
        truth = np.full((48, 64), 255, dtype=np.uint8)
        photo = random.integers(0, 60, (48, 64, 3)).astype(np.uint8)
        for place, index in enumerate(random.permutation(3)[: 2 + number % 2]):
            columns = slice(place * 20, place * 20 + 20)
            truth[:, columns] = index
            photo[:, columns] = list(COLOURS.values())[index]
        for folder, picture in (("photos", photo), ("truth", truth)):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(picture).save(tmp_path / folder / f"{number}.png")
    (tmp_path / "names.txt").write_text("grass | lawn\nsky\nbrick\n")
    return tmp_path


@pytest.fixture
def truth(drawn: Path) -> TruthSet:
    return read_folders(drawn / "photos", drawn / "truth", drawn / "names.txt", ignore=255)


class Thirds:
    """Proposes three stripes, of which one is cut short, so that something stays uncovered."""

    name = "thirds"

    def stream(self, image: np.ndarray) -> Generator[float, None, Proposals]:
        yield 0.5
        masks = np.zeros((3, *image.shape[:2]), dtype=bool)
        for place in range(3):
            masks[place, place * 8 :, place * 22 : place * 22 + 22] = True
        return Proposals.of(masks, np.full(3, 0.9, dtype=np.float32))


def evaluator_settings(models: tuple[Path, Path], **others: object) -> EvaluatorSettings:
    arms = arm_sources(("vanilla", "adapted", f"other={models[1]}"), str(models[0]))
    return EvaluatorSettings(tuple(arms), templates="single", **others)  # type: ignore[arg-type]


def run_evaluation(truth: TruthSet, models: tuple[Path, Path], **others: object) -> EvaluationCounts:
    proposer = None if others.get("masks") == "truth" else Thirds()
    evaluator = Evaluator(truth, class_vocabulary(truth), evaluator_settings(models, **others), proposer)
    return evaluator.run(truth.photos)


def settings_for(drawn: Path, models: tuple[Path, Path], *more: str) -> EvaluateSettings:
    folders = ("--images", "photos", "--labels", "truth", "--classes", "names.txt")
    options = [str(drawn / text) if place % 2 else text for place, text in enumerate(folders)]
    own = ("--model", str(models[0]), "--templates", "single", "--draws", "50", *more)
    return parse_options(EvaluateSettings, [*options, *own], prog="train.evaluate")


@pytest.mark.parametrize("merge", ["benchmark", "default"])
def test_the_figures_are_those_of_the_demos_own_label_maps(
    truth: TruthSet, models: tuple[Path, Path], merge: str
) -> None:
    counted = run_evaluation(truth, models, merge=merge)
    segmenter = Segmenter(models[0], Thirds())
    theirs, ours = [], []
    for photo in truth.photos:
        result = segmenter(photo.read(), "grass, sky, brick", "adapted", merge=merge, templates="single")  # type: ignore[arg-type]
        ours.append(photo.read_labels().astype(np.int64).ravel())
        theirs.append(result.label_map.astype(np.int64).ravel())
    labels, predicted = np.concatenate(ours), np.concatenate(theirs)
    jaccard = MulticlassJaccardIndex(4, average=None, ignore_index=NOTHING)
    wanted = jaccard(torch.from_numpy(np.where(predicted == 0, 3, predicted - 1)), torch.from_numpy(labels))
    figures = counted.tallies()["adapted"].figures()
    shown = ~np.isnan(figures["iou"][0])
    np.testing.assert_allclose(figures["iou"][0][shown], 100 * wanted.numpy()[:3][shown], atol=1e-3)
    if merge == "benchmark":  # exactly the uncovered pixels are unassigned
        uncovered = ~next(iter_masks()).any(axis=0)
        known = np.stack([photo.read_labels() != NOTHING for photo in truth.photos])
        assert figures["unassigned"][0] == pytest.approx(100 * (known & uncovered).sum() / known.sum())


def iter_masks() -> Generator[np.ndarray, None, None]:
    yield run_to_end(Thirds().stream(np.zeros((48, 64, 3), dtype=np.uint8))).masks


def test_arms_see_the_same_photos_and_differ_by_their_weights_alone(
    truth: TruthSet, models: tuple[Path, Path]
) -> None:
    counted = run_evaluation(truth, models)
    tallies = counted.tallies()
    assert list(tallies) == ["vanilla", "adapted", "other"]
    for tally in tallies.values():
        np.testing.assert_array_equal(tally.truth, tallies["vanilla"].truth)
    assert counted.sha256["vanilla"] == counted.sha256["adapted"] != counted.sha256["other"]
    assert (tallies["other"].hits != tallies["vanilla"].hits).any()


def test_true_masks_leave_no_pixel_and_ask_for_every_region(
    truth: TruthSet, models: tuple[Path, Path]
) -> None:
    for counted, asked in (
        (
            run_evaluation(truth, models, masks="truth"),
            sum(len(photo.read_segments()) for photo in truth.photos),
        ),
        (run_evaluation(truth, models, masks="truth", least_side_px=21), 0),
    ):
        tally = counted.tallies()["adapted"]
        assert tally.figures()["unassigned"][0] == 0
        assert tally.regions.sum() == asked
    # A stripe is one region of one class: naming it right and painting it right are the same.
    tally = run_evaluation(truth, models, masks="truth").tallies()["adapted"]
    np.testing.assert_array_equal(tally.hits > 0, tally.named > 0)


def test_a_photo_that_cannot_be_used_is_skipped_under_every_arm(
    drawn: Path, models: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (drawn / "photos" / "2.png").write_bytes(b"no picture")
    Image.new("L", (5, 5)).save(drawn / "truth" / "4.png")  # truth of another size
    truth = read_folders(drawn / "photos", drawn / "truth", drawn / "names.txt", ignore=255)
    counted = run_evaluation(truth, models)
    assert {tally.photos for tally in counted.tallies().values()} == {4}
    assert [line.split(":")[0] for line in counted.skipped] == ["2.png", "4.png"]
    assert capsys.readouterr().err.count("skipped") == 2
    with pytest.raises(DataError, match="No photo"):
        Evaluator(truth, class_vocabulary(truth), evaluator_settings(models), Thirds()).run(truth.photos[2:3])


def test_the_command_writes_table_json_and_chart(
    drawn: Path, models: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    files = drawn / "out" / "figures.json", drawn / "out" / "chart.png"
    more = ("--masks", "truth", "--arms", "both", "--json", str(files[0]), "--chart", str(files[1]))
    more = (*more, "--photos", "3", "--least-side-px", "0")
    evaluate(settings_for(drawn, models, *more))
    report = json.loads(files[0].read_text())
    assert set(report["arms"]) == {"vanilla", "adapted"}
    for arm in report["arms"].values():
        low, high = arm["intervals"]["miou"]
        assert 0 <= low <= arm["miou"] <= high <= 100
        assert {"pixel_accuracy", "present_recall", "absent_precision", "top1", "top1_mean_per_class"} <= set(
            arm
        )
        assert list(arm["classes"]) == ["grass", "sky", "brick"]
        assert set(arm["seconds"]) == {"crop", "embed", "text", "merge"}
        assert len(arm["weights_sha256"]) == 64
    change = report["arms"]["adapted"]["miou"] - report["arms"]["vanilla"]["miou"]
    assert report["difference"]["miou"] == pytest.approx(change, abs=2e-3)
    assert len(report["difference"]["intervals"]["miou"]) == 2
    assert (report["photos"], report["photos_of_the_set"], report["skipped"]) == (3, 6, [])
    assert report["settings"]["merge"] == "benchmark"
    table = capsys.readouterr().out
    for text in ("mIoU", "vanilla", "adapted - vanilla", "mask accuracy", "seconds: embed"):
        assert text in table
    with Image.open(files[1]) as chart:
        assert chart.format == "PNG" and chart.width > 400
        assert len(np.unique(np.asarray(chart).reshape(-1, 3), axis=0)) > 3


def test_one_arm_has_no_difference(drawn: Path, models: tuple[Path, Path], truth: TruthSet) -> None:
    settings = settings_for(drawn, models, "--arms", "adapted", "--masks", "truth")
    evaluator = Evaluator(
        truth,
        class_vocabulary(truth),
        EvaluatorSettings(
            (arm_sources(settings.arms, settings.model)[0],), masks="truth", templates="single"
        ),
    )
    report = make_report(settings, truth, evaluator.run(truth.photos[:2]))
    assert list(report["arms"]) == ["adapted"]
    assert "difference" not in report and report["differences"] == {}


def test_report_is_plain_json_even_where_a_class_is_nowhere(drawn: Path, models: tuple[Path, Path]) -> None:
    (drawn / "names.txt").write_text("grass\nsky\nbrick\nunicorn\n")
    settings = settings_for(drawn, models)
    truth = chosen_data_set(settings)
    report = make_report(settings, truth, run_evaluation(truth, models))
    json.dumps(report, allow_nan=False)
    row = report["arms"]["vanilla"]["classes"]["unicorn"]
    assert row["truth_pixels"] == 0
    assert row["iou"] is None or row["iou"] == 0


def test_synonyms_count_only_when_asked_for(truth: TruthSet) -> None:
    assert class_vocabulary(truth).prompts == ("grass", "sky", "brick")
    assert class_vocabulary(truth, synonyms=True).prompts == ("grass", "lawn", "sky", "brick")


def test_classes_of_one_name_are_refused(truth: TruthSet) -> None:
    twice = TruthSet("twice", ("door", "Door"), truth.photos)
    with pytest.raises(DataError, match="2 classes but only 1 different"):
        class_vocabulary(twice)


def test_a_part_of_the_photos_is_spread_over_all() -> None:
    assert evenly_spaced(range(10), 4) == [0, 3, 6, 9]
    assert evenly_spaced(range(3), 0) == evenly_spaced(range(3), 5) == [0, 1, 2]


@pytest.mark.parametrize(
    ("arms", "message"),
    [((), "empty"), (("vanila",), "'vanila'"), (("adapted", "adapted"), "twice"), (("x=",), "'x='")],
    ids=["none", "unknown", "twice", "no path"],
)
def test_arms_that_mean_nothing_are_refused(arms: tuple[str, ...], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        arm_sources(arms, "ovseg-mini")


def test_every_command_tells_of_a_data_set_that_does_not_exist(tmp_path: Path) -> None:
    for ask_for in (
        lambda name: read_data_set(name, tmp_path),
        lambda name: RegionEvaluator(name, tmp_path, photos=0, keep=tmp_path),
        lambda name: zeroshot(ZeroshotSettings(sets=(name,), data=tmp_path)),
    ):
        with pytest.raises(DataError, match="no data set 'cocoa'; choose one of msrc21, "):
            ask_for("cocoa")


def test_settings_that_cannot_be_met_are_refused() -> None:
    with pytest.raises(SettingsError, match="names its masks itself"):
        EvaluateSettings(ensemble=0.7)
    with pytest.raises(SettingsError, match="0 to 1"):
        EvaluateSettings(ensemble=1.7)
    with pytest.raises(DataError, match="no data set 'mars'"):
        chosen_data_set(EvaluateSettings(data_set="mars"))
    with pytest.raises(DataError, match="all three"):
        chosen_data_set(EvaluateSettings(images=Path("photos")))


# --- words that are not there ----------------------------------------------------------------------------


def test_asked_names_follow_the_protocol(shared: Path) -> None:
    truth = TRUTH_SETS["coco-val"](shared)
    settings = AbsentWordsSettings()
    many = 0
    for photo in truth.photos[:30]:
        question = make_question(photo, len(truth.classes), settings)
        segments = photo.read_segments()
        shown = {segment.class_index for segment in segments}
        large = {segment.class_index for segment in segments if segment.mask.mean() > 0.01}
        assert set(question.present) <= large and len(question.present) == min(5, len(large))
        assert not set(question.absent) & (shown | photo.uncertain) and len(question.absent) == 5
        assert question == make_question(photo, len(truth.classes), settings)
        many += question != make_question(photo, len(truth.classes), AbsentWordsSettings(seed=1))
    assert many > 25


@pytest.mark.slow
def test_real_proposals_on_real_photos(
    shared: Path, models: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = {"model": str(models[0]), "templates": "single", "photos": 2, "proposals_cache": tmp_path / "kept"}
    evaluate(EvaluateSettings("msrc21", shared, json=tmp_path / "a.json", draws=20, **own))  # type: ignore[arg-type]
    first = json.loads((tmp_path / "a.json").read_text())
    assert len(list((tmp_path / "kept").iterdir())) == 2
    assert first["arms"]["adapted"]["unassigned"] < 50
    evaluate(EvaluateSettings("msrc21", shared, json=tmp_path / "b.json", draws=20, **own))  # type: ignore[arg-type]
    second = json.loads((tmp_path / "b.json").read_text())
    assert second["arms"]["adapted"]["miou"] == first["arms"]["adapted"]["miou"]
    assert second["seconds"]["propose"] < first["seconds"]["propose"] / 5

    absent_words(AbsentWordsSettings("coco-val", shared, json=tmp_path / "c.json", draws=20, **own))  # type: ignore[arg-type]
    record = json.loads((tmp_path / "c.json").read_text())
    figures = record["arms"]["adapted"]
    asked = [row for row in record["answers"]]
    assert figures["absent_not_found_of"] == sum(len(row["absent"]) for row in asked)
    right = sum(len(set(row["present"]) & set(row["found"]["adapted"])) for row in asked)
    total = sum(len(row["present"]) for row in asked)
    assert figures["present_found"] == pytest.approx(100 * right / total, abs=1e-3)
    assert "absent not found" in capsys.readouterr().out
