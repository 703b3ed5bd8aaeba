"""The bank of names: how known regions vote, and what a file of them must be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ovseg_demo.clip import load_clip
from ovseg_demo.clip.name_bank import NameBank
from ovseg_demo.errors import CheckpointError
from tests.tiny_mini import write_mini
from train.exporting.weights import save_bank

WIDTH = 768 + 384


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def bank() -> NameBank:
    """Two dogs, the second also a puppy, and a car, along the first axes of a space of five dimensions."""
    projection = np.eye(5, 3, dtype=np.float32)
    regions = unit(np.array([[1, 0, 0], [1, 0.2, 0], [0, 0, 1]]))
    pairs = np.array([[1, 1], [0, 0], [2, 2], [1, 0]])  # in any order
    return NameBank(projection, regions, ["dog", "puppy", "car"], pairs)


def test_near_regions_vote_for_all_their_names(bank: NameBank) -> None:
    here = unit(np.array([[1, 0.1, 0, 0, 0], [0, 0, 1, 0, 0]]))
    votes = bank.votes(here)
    assert votes[0, 0] == pytest.approx(1, abs=1e-6)
    assert 0.4 < votes[0, 1] < 0.6  # as near as the other dog, to the precision of the fixture
    assert votes[1] == pytest.approx([0, 0, 1], abs=1e-6)


def test_what_the_projection_drops_does_not_count(bank: NameBank) -> None:
    plain, with_more = unit(np.array([[1, 0, 0, 0, 0]])), unit(np.array([[1, 0, 0, 3, 2]]))
    assert bank.votes(with_more) == pytest.approx(bank.votes(plain))


def test_votes_become_logits_and_a_name_of_no_region_stands_between(bank: NameBank) -> None:
    here = unit(np.array([[0, 0, 1, 0, 0]]))
    car, cars, dog, zebra = bank.log_votes(here, ["car", "Cars", "dog", "zebra"])[0]
    assert car == pytest.approx(bank.WEIGHT * np.log(1 + bank.FLOOR), abs=1e-5)
    assert cars == car
    assert dog == pytest.approx(bank.WEIGHT * np.log(bank.FLOOR), abs=1e-3)
    assert zebra == pytest.approx(bank.WEIGHT * np.log(bank.UNKNOWN + bank.FLOOR), abs=1e-5)
    assert dog < zebra < car


def test_no_regions_and_no_names_are_answered(bank: NameBank) -> None:
    assert bank.log_votes(np.zeros((0, 5), np.float32), ["dog"]).shape == (0, 1)
    assert bank.log_votes(unit(np.ones((2, 5))), []).shape == (2, 0)


@pytest.mark.parametrize(
    ("projection", "pairs"),
    [((5, 2), [[0, 0]]), ((5, 3), [[3, 0]]), ((5, 3), [[0, 3]]), ((5, 3), [[-1, 0]])],
)
def test_arrays_that_do_not_fit_are_refused(projection: tuple[int, int], pairs: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="bank"):
        NameBank(np.eye(*projection, dtype=np.float32), np.eye(3, dtype=np.float32), "abc", np.array(pairs))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ovseg-mini of random weights with a bank of 40 random regions."""
    folder = write_mini(tmp_path_factory.mktemp("bank") / "mini")
    rng = np.random.default_rng(0)
    projection, _ = np.linalg.qr(rng.normal(size=(WIDTH, 16)))
    pairs = np.stack([np.arange(40), np.arange(40) % 4], axis=1)
    regions = unit(rng.normal(size=(40, 16)))
    names = ["sky", "grass", "café", "road"]
    save_bank(folder, NameBank(projection.astype(np.float32), regions, names, pairs))
    return folder


def test_a_bank_comes_back_from_its_file(folder: Path, tmp_path: Path) -> None:
    clip = load_clip(folder, weights="context")
    assert clip.bank is not None
    assert clip.bank.names == ("sky", "grass", "café", "road")
    features = unit(np.random.default_rng(1).normal(size=(6, WIDTH)))
    text = clip.encode_text(["café", "zebra"]).numpy()
    without = load_clip(write_mini(tmp_path / "plain"), weights="context")
    assert without.bank is None
    plain = without.region_logits(features, text, ["café", "zebra"])
    both = clip.region_logits(features, text, ["café", "zebra"])
    votes = clip.bank.log_votes(features, ["café", "zebra"])
    assert both == pytest.approx(plain + votes, abs=1e-4)
    assert np.ptp(votes[:, 0]) > 1  # some regions are near a café, some are not


def test_a_bank_written_twice_is_there_once(folder: Path, tmp_path: Path) -> None:
    again = shutil.copytree(folder, tmp_path / "again")
    bank = load_clip(again, weights="context").bank
    assert bank is not None
    save_bank(again, bank)
    second = load_clip(again, weights="context").bank
    assert second is not None
    assert second.names == bank.names
    assert second.regions == pytest.approx(bank.regions, abs=0.01)


def test_other_arms_have_no_bank(folder: Path) -> None:
    assert load_clip(folder, weights="adapted").bank is None
    assert load_clip(folder, weights="vanilla").bank is None


def test_a_bank_of_another_tower_is_refused(folder: Path, tmp_path: Path) -> None:
    other = shutil.copytree(folder, tmp_path / "other")
    weights = load_file(other / "adapted.safetensors")
    weights["text.projection.weight"] *= 1.01
    save_file(weights, other / "adapted.safetensors")
    with pytest.raises(CheckpointError, match=r"bank of names made with another adapted arm; make it anew"):
        load_clip(other, weights="context")


@pytest.mark.parametrize("damage", ["names", "pairs", "width"])
def test_a_damaged_bank_is_refused(folder: Path, tmp_path: Path, damage: str) -> None:
    broken = shutil.copytree(folder, tmp_path / "broken")
    path = broken / "context.safetensors"
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        notes = file.metadata()
    if damage == "names":
        notes["bank_names"] = json.dumps(["sky"])
    elif damage == "pairs":
        del tensors["bank.pairs"]
    else:
        tensors["bank.projection"] = tensors["bank.projection"][:-1].contiguous()
    save_file(tensors, path, notes)
    with pytest.raises(CheckpointError, match=r"'context\.safetensors' has a damaged bank of names"):
        load_clip(broken, weights="context")


def test_no_context_arm_no_bank(folder: Path, tmp_path: Path, bank: NameBank) -> None:
    with pytest.raises(CheckpointError, match=r"has no context\.safetensors"):
        save_bank(tmp_path, bank)
