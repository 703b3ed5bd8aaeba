"""Arms of different models on the same masks: text spaces apart, names and regions in common."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ovseg_demo.errors import ModelError, UnknownModelError
from ovseg_demo.models import OF_MODEL, check_listed, chosen_arms, listed_arms, split_arm
from ovseg_demo.output.export import folder_of, write_arms, write_comparison
from ovseg_demo.proposals import Proposals, Steps
from ovseg_demo.segmenter import Segmenter
from ovseg_demo.settings import Settings
from tests.tiny_mini import write_mini
from tests.train.synthetic_pairs import write_vit

WORDS = "dog, grass"


class Halves:
    """Proposes the left and the right half, and counts how often it is asked."""

    name = "halves"

    def __init__(self) -> None:
        self.asked = 0

    def stream(self, image: NDArray[np.uint8]) -> Steps:
        self.asked += 1
        yield 1.0
        masks = np.zeros((2, *image.shape[:2]), dtype=np.bool_)
        masks[0, :, : image.shape[1] // 2] = masks[1, :, image.shape[1] // 2 :] = True
        return Proposals.of(masks, np.ones(2, dtype=np.float32))


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mini(tmp_path_factory.mktemp("mini"))


@pytest.fixture
def vit(tmp_path: Path) -> Path:
    return write_vit(tmp_path / "own clip.pt", prompts=2)


@pytest.fixture
def photo() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def test_two_models_share_masks_and_names_and_nothing_else(
    mini: Path, vit: Path, photo: NDArray[np.uint8], tmp_path: Path
) -> None:
    proposer = Halves()
    segmenter = Segmenter(mini, proposer, settings=Settings(cache_dir=tmp_path / "cache"))
    arms = ("adapted", f"context@{vit}")
    compared = segmenter.compare(photo, WORDS, arms, templates="single")
    assert proposer.asked == 1
    own, other = compared.arms
    assert (own.arm, other.arm) == arms
    assert [c.name for c in own.classes] == [c.name for c in other.classes] == ["dog", "grass"]
    assert [r.box for r in own.regions] == [r.box for r in other.regions]
    assert own.models["clip"]["name"] == str(mini) and other.models["clip"]["name"] == str(vit)
    assert (own.models["clip"]["arm"], other.models["clip"]["arm"]) == ("adapted", "context")
    assert own.models["clip"]["sha256"] != other.models["clip"]["sha256"]
    clips = [segmenter.classifier(arm).clip for arm in arms]
    assert clips[0].embed_dim != clips[1].embed_dim and clips[0].text_key != clips[1].text_key
    alone = Segmenter(vit, proposer, settings=Settings(cache_dir=tmp_path / "cache"))
    again = alone(photo, WORDS, "context", templates="single")
    np.testing.assert_array_equal(again.label_map, other.label_map)
    assert [r.top for r in again.regions] == [r.top for r in other.regions]


def test_files_of_another_models_arm_lie_in_a_folder_of_a_safe_name(
    mini: Path, vit: Path, photo: NDArray[np.uint8], tmp_path: Path
) -> None:
    segmenter = Segmenter(mini, Halves(), settings=Settings(cache_dir=tmp_path / "cache"))
    first = f"vanilla@{vit}"
    compared = segmenter.compare(photo, WORDS, (first, "adapted"), templates="single")
    write_comparison(compared, tmp_path / "two")
    facts = json.loads((tmp_path / "two" / "comparison.json").read_text())
    assert facts["arms"] == [first, "adapted"]
    folder = tmp_path / "two" / folder_of(first)
    assert folder.parent == tmp_path / "two" and (folder / "result.json").is_file()
    arms = segmenter.segment_arms(photo, WORDS, (first, f"context@{vit}", "adapted"), templates="single")
    write_arms(arms, tmp_path / "three")
    assert len([path for path in (tmp_path / "three").iterdir() if path.is_dir()]) == 2
    for name in ("context@open_clip:ViT-B-16/laion2b_s34b_b88k", "vanilla@../../etc", "vanilla@..\\..\\x"):
        assert not {"/", "\\", ":"} & set(folder_of(name)) and not folder_of(name).startswith(".")


def test_an_arm_is_written_with_its_model_behind_it() -> None:
    assert split_arm("context", "ovseg-mini") == ("context", "ovseg-mini")
    other = "open_clip:ViT-B-16/laion2b_s34b_b88k"
    assert split_arm(f"context{OF_MODEL}{other}", "ovseg-mini") == ("context", other)
    assert chosen_arms(["adapted", f"all@{other}"], "ovseg-mini") == (
        *("adapted", f"vanilla@{other}", f"context@{other}"),
    )
    assert chosen_arms(["vanilla@ovseg-mini", "vanilla"], "ovseg-mini") == ("vanilla",)  # one and the same
    assert "mpt-only@ovseg-swinb-vit-l-14" in listed_arms() and "context@clip-vit-b-16" in listed_arms()
    with pytest.raises(ModelError, match=r"no arm called 'best'; choose from .* as ARM@MODEL"):
        chosen_arms(["best@ovseg-mini"], "ovseg-mini")


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("clip-vit-b16", "the nearest are clip-vit-b-16"),
        ("open_clip:ViT-B-16/laion2b", ", open_clip:ViT-B-16/laion2b_s34b_b88k"),
        ("/etc/passwd", "the nearest are"),
        ("../checkpoints/ovseg-mini/adapted.safetensors", "the nearest are"),
    ],
)
def test_visitors_choose_among_the_models_of_the_lists(name: str, nearest: str) -> None:
    with pytest.raises(UnknownModelError) as caught:
        check_listed(("adapted", f"context@{name}"), "ovseg-mini")
    assert caught.value.public == str(caught.value)
    assert str(caught.value).startswith(f"This server has no model '{name}'; ")
    assert nearest in str(caught.value) and str(caught.value).count(". ") == 0


def test_the_servers_own_model_and_all_of_the_lists_may_be_chosen() -> None:
    check_listed(("adapted", "context@runs/mine"), "ovseg-mini", "runs/mine")
    check_listed(listed_arms(), "ovseg-mini")
    assert "context@open_clip:ViT-B-16/laion2b_s34b_b88k" in listed_arms()
