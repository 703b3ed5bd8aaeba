"""The evaluation takes any arms of a model, those included that see the whole photo."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from PIL import Image

from ovseg_demo.clip import load_clip
from ovseg_demo.proposals import Proposals, Steps
from tests.tiny_mini import write_mini
from train.data.folders import read_folders
from train.data.true_regions import true_regions
from train.data.truth import TruthSet
from train.evaluate import evaluate
from train.evaluation.runner import Evaluator, EvaluatorSettings, arm_sources, class_vocabulary
from train.evaluation.settings import EvaluateSettings
from train.zeroshot import ZeroshotSettings, region_accuracy


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mini(tmp_path_factory.mktemp("mini"))


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> TruthSet:
    """Two photos of noise, each with two regions."""
    folder = tmp_path_factory.mktemp("truth")
    random = np.random.default_rng(0)
    for number in range(2):
        labels = np.full((90, 120), 255, dtype=np.uint8)
        labels[:50], labels[50:, 40:] = number, 2
        photo = random.integers(0, 256, (90, 120, 3)).astype(np.uint8)
        for name, picture in (("photos", photo), ("labels", labels)):
            (folder / name).mkdir(exist_ok=True)
            Image.fromarray(picture).save(folder / name / f"{number}.png")
    (folder / "names.txt").write_text("grass\nsky\nbrick\n")
    return read_folders(folder / "photos", folder / "labels", folder / "names.txt", ignore=255)


def test_all_means_every_arm_of_the_model(model: Path) -> None:
    assert [arm.weights for arm in arm_sources(("all",), str(model))] == ["vanilla", "adapted", "context"]
    assert [arm.weights for arm in arm_sources(("both", "context"), str(model))] == [
        *("vanilla", "adapted", "context"),
    ]
    (apart,) = arm_sources((f"adapted@{model}",), "ovseg-mini")
    assert (apart.name, apart.model, apart.weights) == (f"adapted@{model}", str(model), "adapted")
    (other,) = arm_sources((f"mine={model}",), "ovseg-mini")
    assert (other.name, other.weights) == ("mine", "context")  # its best


def test_true_regions_are_named_as_the_segmenter_names_them(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    colours = {"red": (220, 20, 30), "green": (30, 160, 40), "blue": (20, 40, 220), "yellow": (240, 230, 20)}
    colours |= {"black": (10, 10, 10), "white": (250, 250, 250)}
    for number in range(2):
        tiles = random.permutation(6).reshape(2, 3).repeat(50, axis=0).repeat(50, axis=1).astype(np.uint8)
        photo = np.array(list(colours.values()))[tiles] + random.integers(-60, 60, (100, 150, 3))
        tiles[np.tile(np.tri(50, dtype=bool), (2, 3))] = 255  # the masks are triangles
        for name, picture in (("photos", photo.clip(0, 255).astype(np.uint8)), ("labels", tiles)):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray(picture).save(tmp_path / name / f"{number}.png")
    (tmp_path / "names.txt").write_text("".join(f"{name}\n" for name in colours))
    truth = read_folders(tmp_path / "photos", tmp_path / "labels", tmp_path / "names.txt", ignore=255)
    settings = ZeroshotSettings(templates="single")
    arms = tuple(arm_sources(("adapted", "context"), "ovseg-mini"))
    asked = EvaluatorSettings(arms, masks="truth", templates="single")
    counted = Evaluator(truth, class_vocabulary(truth), asked).run(truth.photos)
    for arm in ("adapted", "context"):
        clip = load_clip("ovseg-mini", weights=arm)
        figures = region_accuracy(clip, truth, settings, masked=True)
        named = np.sum([counts.named for counts in counted.counts[arm]], axis=0)
        assert figures["regions"] == 12 and figures["top1"] == pytest.approx(100 * named.sum() / 12)
        assert 0 < named.sum() < 12 and figures["mean_per_class"] == pytest.approx(50 * named.mean())


def test_unmasked_regions_are_named_by_their_rectangles(model: Path, truth: TruthSet) -> None:
    clip = load_clip(model, weights="adapted")
    names, right = clip.encode_text(truth.classes, "single"), 0
    for batch in true_regions(truth, masked=False, photos=0):
        features = clip.encode_photo_regions(batch.image, batch.masks, use_prompts=False)
        right += int(((features @ names.T).argmax(1) == batch.classes).sum())
    figures = region_accuracy(clip, truth, ZeroshotSettings(str(model), templates="single"), masked=False)
    assert figures["regions"] == 4 and figures["top1"] == 100 * right / 4


def test_unmasked_regions_are_the_rectangles_around_them(truth: TruthSet) -> None:
    photo = next(iter(true_regions(truth, masked=False, photos=1)))
    assert [mask.sum() for mask in photo.masks] == [50 * 120, 40 * 80]


@torch.inference_mode()
def test_true_masks_are_evaluated_under_every_arm(model: Path, truth: TruthSet) -> None:
    arms = tuple(arm_sources(("all",), str(model)))
    settings = EvaluatorSettings(arms, masks="truth", templates="single", model=str(model))
    counted = Evaluator(truth, class_vocabulary(truth), settings).run(truth.photos)
    assert set(counted.counts) == {"vanilla", "adapted", "context"}
    assert all(len(counts) == 2 for counts in counted.counts.values())
    assert len(set(counted.sha256.values())) == 3


def test_both_kinds_of_masks_make_one_table_and_one_picture(
    model: Path, truth: TruthSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = truth.photos[0].path.parent.parent
    clip = tmp_path / "clip.pt"
    torch.manual_seed(0)
    vision, text = CLIPVisionCfg(2, 64, image_size=16, patch_size=4), CLIPTextCfg(width=64, heads=1, layers=1)
    torch.save(CLIP(32, vision, text, quick_gelu=True).state_dict(), clip)
    files = [tmp_path / name for name in ("report.json", "table.png", "chart.png")]
    evaluate(
        EvaluateSettings(
            images=folder / "photos",
            labels=folder / "labels",
            classes=folder / "names.txt",
            masks="both",
            model=str(model),
            arms=("vanilla", "adapted", f"context@{clip}"),
            templates="single",
            max_side_px=128,
            draws=20,
            json=files[0],
            table=files[1],
            chart=files[2],
        )
    )
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    assert [line.split()[0] for line in lines[-3:]] == ["vanilla", "adapted", f"context@{clip}"]
    assert lines[-5].split("  ")[0] == "" and "mask accuracy" in lines[-5] and "seconds a photo" in lines[-5]
    assert "true masks" in lines[-4] and "proposals" in lines[-4]
    reports = json.loads(files[0].read_text())["masks"]
    for masks in ("truth", "proposals"):
        arms = reports[masks]["arms"]
        assert list(arms) == ["vanilla", "adapted", f"context@{clip}"]
        assert all("miou" in arm and "top1" in arm["intervals"] for arm in arms.values())
    with Image.open(files[1]) as table:
        assert table.format == "PNG" and table.width > 8 * 200 and table.height > 3 * 30
    assert (tmp_path / "chart-truth.png").is_file() and (tmp_path / "chart-proposals.png").is_file()


@pytest.mark.parametrize(
    ("name", "photo", "label", "ignored"),
    [
        ("ade20k-150", "ADEChallengeData2016/images/validation/1.jpg",
         "ADEChallengeData2016/annotations/validation/1.png", 0),
        ("context-59", "pcontext/val/image/1.jpg", "pcontext/val/label/1.png", 255),
        ("voc-20", "VOCdevkit/VOC2012/images_detectron2/val/1.jpg",
         "VOCdevkit/VOC2012/annotations_detectron2/val/1.png", 255),
        ("coco-stuff-171", "coco/val2017/1.jpg", "coco/stuffthingmaps_detectron2/val2017/1.png", 255),
    ],
)  # fmt: skip
def test_mask_accuracy_is_told_for_published_folders(
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    photo: str,
    label: str,
    ignored: int,
) -> None:
    labels = np.full((90, 120), ignored, dtype=np.uint8)
    labels[:50], labels[50:, 40:] = 3, 12
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3)).astype(np.uint8)
    for path, picture in ((tmp_path / photo, pixels), (tmp_path / label, labels)):
        path.parent.mkdir(parents=True)
        Image.fromarray(picture).save(path)
    report = tmp_path / "report.json"
    evaluate(
        EvaluateSettings(
            data=tmp_path,
            data_set=name,
            masks="truth",
            model=str(model),
            arms=("adapted",),
            templates="single",
            draws=20,
            json=report,
        )
    )
    assert "mask accuracy" in capsys.readouterr().out
    low, high = json.loads(report.read_text())["arms"]["adapted"]["intervals"]["top1"]
    assert 0 <= low <= high <= 100


def test_a_proposals_true_name_is_the_class_that_fills_half_of_it(model: Path, truth: TruthSet) -> None:
    arms = tuple(arm_sources(("vanilla",), str(model)))
    settings = EvaluatorSettings(arms, templates="single", model=str(model))
    masks = np.zeros((4, 90, 120), dtype=np.bool_)
    masks[0, :50] = True  # grass alone
    masks[1, :80, 60:] = True  # five parts grass, three parts brick
    masks[2, 40:70, :40] = True  # ten rows grass, twenty unlabelled
    masks[3, 50:, 40:50] = True  # brick alone
    evaluator = Evaluator(truth, class_vocabulary(truth), settings, GivenMasks(masks))
    result = evaluator.segment(arms[0], truth.photos[0].read())
    order = [int(np.flatnonzero([np.array_equal(m, own) for own in masks])[0]) for m in result.masks]  # type: ignore[union-attr]
    found = evaluator.classes_of_proposals(result, truth.photos[0].read_labels())
    assert dict(zip(order, found, strict=True)) == {0: 0, 1: 0, 2: -1, 3: 2}
    counts = evaluator.run(truth.photos[:1]).counts["vanilla"][0]
    assert counts.regions.tolist() == [2, 0, 1]


class GivenMasks:
    """Proposes the same masks for every photo."""

    name = "given"

    def __init__(self, masks: np.ndarray) -> None:
        self.masks = masks

    def stream(self, image: np.ndarray) -> Steps:
        yield 1.0
        return Proposals.of(self.masks, np.ones(len(self.masks), dtype=np.float32))
