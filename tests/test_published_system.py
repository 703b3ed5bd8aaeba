"""The published system as a whole, on a tiny file of random weights: pipeline, command line, evaluator."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ovseg_demo.cli import main
from ovseg_demo.errors import ModelError, SettingsError
from ovseg_demo.imaging import load_image
from ovseg_demo.proposals import Proposals, propose
from ovseg_demo.proposals.maskformer import MaskFormerProposer
from ovseg_demo.segmenter import Segmenter
from ovseg_demo.settings import Settings
from tests.tiny_full import TINY_RESNET, full_weights, save_full
from train.evaluate import evaluate
from train.evaluation.proposers import CachedProposer
from train.evaluation.settings import EvaluateSettings

NAMES = "grass, sky | heaven, brick"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_full(tmp_path_factory.mktemp("full") / "full.pth")


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 60, (30, 48, 3)).astype(np.uint8)
    pixels[:, 20:] += np.array([0, 150, 60], dtype=np.uint8)
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module")
def segmenter(checkpoint: Path) -> Segmenter:
    made = Segmenter.from_pretrained(checkpoint, proposer="maskformer", device="cpu")
    small(made)
    return made


def small(segmenter: Segmenter) -> MaskFormerProposer:
    """Use a small working size for the small network."""
    assert isinstance(segmenter.proposer, MaskFormerProposer)
    segmenter.proposer.short_side = 64
    return segmenter.proposer


def test_a_complete_file_is_model_and_proposer(segmenter: Segmenter, photo: Path) -> None:
    result = segmenter(photo, NAMES, merge="benchmark", templates="single", ensemble=0.7)
    assert result.label_map.shape == (30, 48)
    assert result.models["proposer"]["name"] == "maskformer"
    assert result.settings["ensemble"] == 0.7
    assert result.masks is not None and result.masks.shape[1:] == (64, 102)
    assert {c.index for c in result.found} == set(np.unique(result.label_map)) - {0}
    for region in result.regions:
        assert sum(score for _, score in region.top) <= 1 + 1e-5


@pytest.mark.parametrize("merge", ["default", "benchmark", "published-demo"])
@pytest.mark.parametrize("arm", ["adapted", "vanilla", "no-prompts"])
def test_every_rule_and_arm_works(segmenter: Segmenter, photo: Path, merge: str, arm: str) -> None:
    result = segmenter(photo, NAMES, arm, merge=merge, templates="single")  # type: ignore[arg-type]
    assert result.arm == arm and result.label_map.max() <= 3
    assert segmenter.classifier(arm).clip.has_prompts == (arm == "adapted")  # type: ignore[arg-type]


def test_words_and_weight_change_without_a_second_look(segmenter: Segmenter, photo: Path) -> None:
    first = segmenter(photo, NAMES, merge="benchmark", templates="single", ensemble=0.0)
    again = segmenter(photo, NAMES, merge="benchmark", templates="single", ensemble=0.3)
    assert again.timings["propose"] == 0
    assert [r.top for r in first.regions] != [r.top for r in again.regions]


def test_an_ensemble_that_cannot_be_is_told(segmenter: Segmenter, photo: Path) -> None:
    with pytest.raises(SettingsError, match="published rules"):
        segmenter(photo, NAMES, merge="default", templates="single", ensemble=0.5)
    other = Segmenter("ovseg-mini", segmenter.proposer)
    with pytest.raises(SettingsError, match="same text space"):
        other(photo, NAMES, "vanilla", merge="benchmark", templates="single", ensemble=0.5)


def test_kept_proposals_keep_their_queries(segmenter: Segmenter, photo: Path, tmp_path: Path) -> None:
    proposer = small(segmenter)
    image = proposer.working_image(load_image(photo))
    first = propose(CachedProposer(proposer, tmp_path), image)

    class Idle(MaskFormerProposer):
        def __init__(self) -> None:
            self.__dict__ |= vars(proposer)

        def proposals(self, *_: object) -> Proposals:
            raise AssertionError("computed again")

    again = propose(CachedProposer(Idle(), tmp_path), image)
    assert again.queries is not None and first.queries is not None
    for name, value in first.queries.to_arrays().items():
        np.testing.assert_array_equal(value, again.queries.to_arrays()[name])
    np.testing.assert_array_equal(first.masks, again.masks)
    assert CachedProposer(proposer).working_image(image).shape == image.shape


def test_the_command_line_runs_it(checkpoint: Path, photo: Path, tmp_path: Path) -> None:
    asked = ["segment", str(photo), "--vocabulary", NAMES, "--out", str(tmp_path), "--templates", "single"]
    asked += ["--model", str(checkpoint), "--proposer", "maskformer", "--device", "cpu"]
    assert main([*asked, "--merge", "benchmark", "--ensemble", "0.7", "--mask-threshold", "0.4"]) == 0
    told = json.loads((tmp_path / "result.json").read_text("utf-8"))
    assert told["settings"]["ensemble"] == 0.7 and told["settings"]["merge"] == "benchmark"


def test_the_command_line_tells_in_one_sentence(
    checkpoint: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["segment", str(photo), "--vocabulary", NAMES, "--out", str(tmp_path), "--model", str(checkpoint)]
    assert main([*asked, "--ensemble", "1.5"]) == 2
    assert capsys.readouterr().err.count("ensemble is 1.5") == 1
    assert main([*asked, "--weights", "mpt-only"]) == 2
    assert "has no mpt-only arm" in capsys.readouterr().err


def test_the_evaluator_runs_the_published_protocol(checkpoint: Path, photo: Path, tmp_path: Path) -> None:
    for folder in ("photos", "truth"):
        (tmp_path / folder).mkdir()
    Image.open(photo).save(tmp_path / "photos" / "1.png")
    truth = np.zeros((30, 48), dtype=np.uint8)
    truth[:, 20:] = 1
    Image.fromarray(truth).save(tmp_path / "truth" / "1.png")
    (tmp_path / "names.txt").write_text("brick\ngrass\n")
    evaluate(
        EvaluateSettings(
            images=tmp_path / "photos",
            labels=tmp_path / "truth",
            classes=tmp_path / "names.txt",
            model=str(checkpoint),
            proposer="maskformer",
            ensemble=0.7,
            arms=("adapted", "no-prompts"),
            templates="single",
            device="cpu",
            draws=10,
            json=tmp_path / "report.json",
        )
    )
    report = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert set(report["arms"]) == {"adapted", "no-prompts"}
    assert all(0 <= arm["miou"] <= 100 for arm in report["arms"].values())
    assert report["settings"]["ensemble"] == 0.7 and report["settings"]["mask_threshold"] == 0.4


def test_the_small_system_runs_from_its_file_in_its_folder(photo: Path, tmp_path: Path) -> None:
    """By its name, as a person who has put the file there does; MaskFormer and CLIP are both in it."""
    folder = tmp_path / "weights" / "ovseg-r101c-vit-b-16"
    folder.mkdir(parents=True)
    save_full(folder / "ovseg_R101c_vitB16_ft_mpt.pth", full_weights(TINY_RESNET))
    made = Segmenter.from_pretrained(
        "ovseg-r101c-vit-b-16", device="cpu", settings=Settings(cache_dir=tmp_path)
    )
    assert isinstance(made.proposer, MaskFormerProposer)
    assert made.proposer.name == "maskformer-r101c"
    assert (made.proposer.short_side, made.proposer.long_side) == (512, 2048)
    small(made)
    result = made(photo, NAMES, weights="adapted", merge="benchmark", templates="single", ensemble=0.7)
    assert result.label_map.shape == (30, 48)
    assert result.models["proposer"]["name"] == "maskformer-r101c"


def test_the_small_system_says_where_its_file_goes(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"get ovseg_R101c_vitB16_ft_mpt\.pth from .*ovseg-r101c-vit-b-16"):
        Segmenter.from_pretrained("ovseg-r101c-vit-b-16", device="cpu", settings=Settings(cache_dir=tmp_path))


def test_a_model_brings_its_own_proposer(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(
        "ovseg_demo.proposals.loading.load_proposer", lambda name, **_: asked.append(name) or (lambda: None)
    )
    Segmenter.from_pretrained("ovseg-swinb-vit-l-14")
    Segmenter.from_pretrained("ovseg-swinb-vit-l-14", proposer="sam-vit-b")
    Segmenter.from_pretrained("ovseg-mini", settings=Settings(proposer="sam-vit-l"))
    assert asked == ["maskformer", "sam-vit-b", "sam-vit-l"]
