"""The evaluation takes any arms of a model, those included that see the whole photo."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ovseg_demo.clip import load_clip
from tests.tiny_mini import write_mini
from train.data.folders import read_folders
from train.data.true_regions import true_regions
from train.data.truth import TruthSet
from train.evaluation.runner import Evaluator, EvaluatorSettings, arm_sources, class_vocabulary
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
    (other,) = arm_sources((f"mine={model}",), "ovseg-mini")
    assert (other.name, other.weights) == ("mine", "context")  # its best


@pytest.mark.parametrize("masked", [True, False])
def test_true_regions_are_named_as_the_arm_names_them(model: Path, truth: TruthSet, masked: bool) -> None:
    settings = ZeroshotSettings(str(model), templates="single")
    for arm in ("adapted", "context"):
        clip = load_clip(model, weights=arm)
        names = clip.encode_text(truth.classes, "single")
        right = 0
        for batch in true_regions(truth, masked=masked, photos=0):
            features = clip.encode_photo_regions(batch.image, batch.masks, use_prompts=masked)
            right += int(((features @ names.T).argmax(1) == batch.classes).sum())
        figures = region_accuracy(clip, truth, settings, masked=masked)
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
