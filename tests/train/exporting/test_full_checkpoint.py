"""A new CLIP goes into a complete OVSeg file and comes out of it again, bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from ovseg_demo.clip import load_clip
from ovseg_demo.clip.checkpoints import PROMPTS
from ovseg_demo.errors import CheckpointError, SettingsError
from ovseg_demo.proposals.maskformer.key_mapping import CLIP_PREFIX
from ovseg_demo.proposals.maskformer.weights import load_segmenter
from tests.tiny_full import clip_weights, full_weights, save_full, segmenter_weights
from train.export import export
from train.exporting.settings import ExportSettings


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    weights = full_weights()
    halves = {k: v.half() if v.is_floating_point() and v.ndim > 1 else v for k, v in weights.items()}
    return save_full(tmp_path_factory.mktemp("full") / "full.pth", halves)


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("adapted") / "adapted.pt"
    torch.save({"state_dict": {f"module.{k}": v for k, v in clip_weights(seed=1).items()}}, path)
    return path


def inner(path: Path) -> dict[str, Tensor]:
    return dict(torch.load(path, weights_only=True)["model"])


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert list(first) == list(second)
    for key, value in first.items():
        assert value.dtype == second[key].dtype and torch.equal(value, second[key]), key


def test_in_and_out_again_is_bit_exact(full: Path, adapted: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.pth"
    export(ExportSettings(adapted, new, form="full", into=full))
    export(ExportSettings(new, tmp_path / "clip.pt", form="openai"))
    out = torch.load(tmp_path / "clip.pt", weights_only=True)
    wanted = clip_weights(seed=1)
    assert_same(dict(sorted(out.items())), dict(sorted(wanted.items())))
    before, after = inner(full), inner(new)
    kept = [key for key in before if not key.startswith(CLIP_PREFIX)]
    assert_same({k: before[k] for k in kept}, {k: after[k] for k in kept})
    assert list(after) == list(before)


def test_taking_out_and_putting_back_gives_the_same_file(full: Path, tmp_path: Path) -> None:
    export(ExportSettings(full, tmp_path / "clip.pt", form="openai"))
    export(ExportSettings(tmp_path / "clip.pt", tmp_path / "again.pth", form="full", into=full))
    assert_same(inner(tmp_path / "again.pth"), inner(full))
    stored = torch.load(tmp_path / "again.pth", weights_only=True)
    assert stored["iteration"] == 7
    assert stored["model"]._metadata == {"sem_seg_head": {"version": 2}}


def test_the_product_loads_both_halves(full: Path, adapted: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.pth"
    export(ExportSettings(adapted, new, form="full", into=full))
    network, _ = load_segmenter(new)
    crops, masks = torch.randn(2, 3, 16, 16), torch.ones(2, 16, 16)
    masks[:, :8] = 0
    assert torch.equal(
        load_clip(new).encode_regions(crops, masks), load_clip(adapted).encode_regions(crops, masks)
    )
    assert network.model.transformer_module.queries_embedder.weight.shape == (7, 32)


def test_prompts_are_taken_even_if_there_were_none_or_of_another_depth(
    full: Path, adapted: Path, tmp_path: Path
) -> None:
    without = {k: v for k, v in full_weights().items() if PROMPTS not in k}
    save_full(tmp_path / "without.pth", without)
    export(ExportSettings(adapted, tmp_path / "new.pth", form="full", into=tmp_path / "without.pth"))
    assert load_clip(tmp_path / "new.pth").has_prompts
    torch.save({**clip_weights(), PROMPTS: torch.randn(1, 16, 64)}, tmp_path / "shallow.pt")
    export(ExportSettings(tmp_path / "shallow.pt", tmp_path / "new.pth", form="full", into=full))
    prompts = load_clip(tmp_path / "new.pth").image_tower.prompts
    assert prompts is not None and prompts.depth == 1


def test_what_does_not_fit_is_told(full: Path, adapted: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="belong together"):
        ExportSettings(adapted, tmp_path / "new.pth", form="full")
    torch.save(clip_weights(), tmp_path / "clip.pt")
    with pytest.raises(CheckpointError, match="no CLIP in it"):
        export(ExportSettings(adapted, tmp_path / "n.pth", form="full", into=tmp_path / "clip.pt"))
    save_full(tmp_path / "half.pth", segmenter_weights())
    with pytest.raises(CheckpointError, match="no CLIP in it"):
        export(ExportSettings(adapted, tmp_path / "n.pth", form="full", into=tmp_path / "half.pth"))
    deeper = clip_weights()
    block = "visual.transformer.resblocks.{}."
    deeper |= {
        k.replace(block.format(0), block.format(3)): v for k, v in deeper.items() if block.format(0) in k
    }
    torch.save(deeper, tmp_path / "deeper.pt")
    with pytest.raises(CheckpointError, match=r"does not fit .*adds visual\.transformer\.resblocks\.3"):
        export(ExportSettings(tmp_path / "deeper.pt", tmp_path / "n.pth", form="full", into=full))
    assert not (tmp_path / "n.pth").exists()
