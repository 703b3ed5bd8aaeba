"""Published SAM checkpoints: a small one of the same make runs, a wrong one says what is wrong."""

from __future__ import annotations

import pickle
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch

from ovseg_demo.errors import CheckpointError, SettingsError, UnknownModelError
from ovseg_demo.models import resolve
from ovseg_demo.proposals import load_proposer, propose
from ovseg_demo.proposals.prompting import PointPromptConfig
from ovseg_demo.proposals.sam import CONFIGS, PaddedEncoder, SamConfig, build_sam, load_sam

TINY = SamConfig(width=16, depth=2, heads=2, global_blocks=(1,))
EAGER = PointPromptConfig(coarse=4, refine=2, min_quality=-9, min_stability=-1, max_overlap=1)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state dict with the keys of SAM, for an encoder that is small and random."""
    torch.manual_seed(0)
    state = {key: torch.randn(value.shape) * 0.1 for key, value in build_sam(TINY).state_dict().items()}
    path = tmp_path_factory.mktemp("sam") / "tiny.pth"
    torch.save(state, path)
    return path


def test_a_checkpoint_of_sams_make_proposes_masks(checkpoint: Path) -> None:
    proposer = load_sam("sam-vit-b", checkpoint, device=torch.device("cpu"), plan=EAGER, config=TINY)
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    proposals = propose(proposer, image)
    assert proposer.name == "sam-vit-b"
    assert len(proposals) > 0
    assert proposals.masks.shape[1:] == (30, 40)


def test_padding_is_cut_off_again() -> None:
    torch.manual_seed(0)
    seen: list[torch.Tensor] = []

    def encoder(square: torch.Tensor) -> torch.Tensor:
        seen.append(square)
        return torch.nn.functional.avg_pool2d(square, 16)

    module = torch.nn.Module()
    module.forward = encoder
    pixels = torch.randn(1, 3, 512, 1024)
    embedding = PaddedEncoder(module)(pixels)
    assert seen[0].shape == (1, 3, 1024, 1024)
    assert not seen[0][:, :, 512:].any()
    torch.testing.assert_close(embedding, torch.nn.functional.avg_pool2d(pixels, 16))


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("sam-vit-b", 93_735_472), ("sam-vit-l", 312_342_832), ("sam-vit-h", 641_090_608)],
)
def test_the_three_sizes_have_the_published_number_of_parameters(name: str, parameters: int) -> None:
    assert sum(p.numel() for p in build_sam(CONFIGS[name]).parameters()) == parameters


def test_another_models_weights_are_refused_by_their_wrong_keys(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="image_encoder") as error:
        load_proposer("sam-vit-b", weights=checkpoint)
    assert str(checkpoint) in str(error.value)
    state = torch.load(checkpoint, weights_only=True)
    del state["mask_decoder.iou_token.weight"]
    torch.save(state, tmp_path / "lacking.pth")
    with pytest.raises(CheckpointError, match=r"it lacks mask_decoder\.iou_token\.weight"):
        load_sam("sam-vit-b", tmp_path / "lacking.pth", device=torch.device("cpu"), plan=EAGER, config=TINY)
    with pytest.raises(CheckpointError, match="has unknown"):
        load_proposer("mobile-sam", weights=checkpoint)


def test_files_that_are_no_checkpoints_are_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.pth"
    text.write_text("not weights")
    with pytest.raises(
        CheckpointError, match="no file of PyTorch or safetensors: it begins with 'not weights'"
    ):
        load_proposer("sam-vit-b", weights=text)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="holds list, not a dictionary of weights"):
        load_proposer("sam-vit-b", weights=tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_proposer("sam-vit-b", weights=tmp_path / "missing.pth")


def test_a_pickle_under_another_name_is_refused_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "sam.safetensors"
    path.write_bytes(pickle.dumps({"weights": 1}, protocol=2))
    with pytest.raises(CheckpointError, match=r"'sam\.safetensors'"):
        load_proposer("mobile-sam", weights=path)


def test_a_local_file_tells_which_sam_it_is(checkpoint: Path, tmp_path: Path) -> None:
    mobile = load_proposer(str(resolve("mobile-sam").path), size=256, density="low")
    assert mobile.name == "mobile-sam"
    state = torch.load(checkpoint, weights_only=True)
    state["image_encoder.pos_embed"] = torch.zeros(1, 64, 64, CONFIGS["sam-vit-l"].width)
    torch.save(state, tmp_path / "mine.pth")
    with pytest.raises(CheckpointError, match=r"mine\.pth is not sam-vit-l"):
        load_proposer(str(tmp_path / "mine.pth"))


def test_a_file_given_by_its_path_is_hashed(tmp_path: Path) -> None:
    published = resolve("mobile-sam")
    state = torch.load(published.path, weights_only=True)
    state["prompt_encoder.not_a_point_embed.weight"] += 0.01
    torch.save(state, tmp_path / "mine.pt")
    mine = load_proposer(str(tmp_path / "mine.pt"), size=256, cache_dir=tmp_path / "cache")
    given = load_proposer("mobile-sam", weights=published.path, size=256, cache_dir=tmp_path / "cache")
    assert mine.weights_sha256 == sha256((tmp_path / "mine.pt").read_bytes()).hexdigest()
    assert given.weights_sha256 == published.sha256


def test_wrong_requests_say_what_there_is() -> None:
    with pytest.raises(UnknownModelError, match=r"'sam-vit-x'.*mobile-sam"):
        load_proposer("sam-vit-x")
    with pytest.raises(SettingsError, match=r"'dense'.*low, normal, high"):
        load_proposer("mobile-sam", density="dense")
    with pytest.raises(SettingsError, match="size 500 must be a multiple of 16"):
        load_proposer("mobile-sam", size=500)
    with pytest.raises(SettingsError, match="1024 only, not 512"):
        load_proposer("sam-vit-b", size=512)
