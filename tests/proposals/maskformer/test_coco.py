"""COCO's MaskFormer gives transformers' numbers; its classes are not used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import MaskFormerForInstanceSegmentation

from ovseg_demo.errors import CheckpointError
from ovseg_demo.proposals import load_proposer, propose
from ovseg_demo.proposals.maskformer import load_coco_maskformer
from ovseg_demo.proposals.maskformer.network import prepare, transformers_config
from tests.tiny_full import TINY

CPU = torch.device("cpu")
IMAGE = np.random.default_rng(0).integers(0, 256, (640, 700, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def theirs() -> MaskFormerForInstanceSegmentation:
    torch.manual_seed(0)
    config = transformers_config(TINY)
    config.num_labels = 133
    model = MaskFormerForInstanceSegmentation(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape)
    return model


@pytest.fixture(scope="module")
def checkpoint(theirs: MaskFormerForInstanceSegmentation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("coco")
    theirs.save_pretrained(folder)
    return folder / "model.safetensors"


def test_masks_are_those_of_transformers(theirs: MaskFormerForInstanceSegmentation, checkpoint: Path) -> None:
    proposer = load_coco_maskformer("coco", checkpoint, device=CPU, config=TINY)
    proposals = propose(proposer, IMAGE)
    with torch.inference_mode():
        told = theirs(prepare(torch.from_numpy(IMAGE)))
    logits = torch.nn.functional.interpolate(told.masks_queries_logits, (640, 704), mode="bilinear")
    soft = logits[0, :, :, :700].sigmoid().numpy()
    classes = told.class_queries_logits[0].softmax(-1).numpy()
    kept = [n for n in range(7) if classes[n].argmax() < 133 and (soft[n] > 0.5).any()]
    assert kept
    assert sorted(mask.sum() for mask in proposals.masks) == sorted((soft[n] > 0.5).sum() for n in kept)
    wanted = {(soft[n] > 0.5).sum(): soft[n][soft[n] > 0.5].mean() * (1 - classes[n, -1]) for n in kept}
    for mask, quality in zip(proposals.masks, proposals.quality, strict=True):
        assert quality == pytest.approx(wanted[mask.sum()], abs=1e-4)
    assert proposals.queries is None


def test_a_file_of_another_kind_is_told_by_what_it_lacks(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"where .* fits"):
        load_proposer("maskformer-swin-base-coco", weights=_deeper(checkpoint, tmp_path))
    weights = load_file(checkpoint)
    del weights["mask_embedder.1.0.bias"]
    save_file(weights, tmp_path / "lacking.safetensors")
    with pytest.raises(CheckpointError, match=r"lacks mask_embed\.1\.0\.bias"):
        load_coco_maskformer("coco", tmp_path / "lacking.safetensors", device=CPU, config=TINY)
    save_file({**load_file(checkpoint), "surprise": torch.zeros(1)}, tmp_path / "more.safetensors")
    with pytest.raises(CheckpointError, match="has unknown surprise"):
        load_coco_maskformer("coco", tmp_path / "more.safetensors", device=CPU, config=TINY)


def _deeper(checkpoint: Path, folder: Path) -> Path:
    """The tiny file with as many blocks and layers as a Swin-B MaskFormer, so that only sizes differ."""
    weights = dict(load_file(checkpoint))
    blocks = "model.pixel_level_module.encoder.model.encoder.layers.{}.blocks.{}."
    for stage, depth in enumerate((2, 2, 18, 2)):
        for block in range(1, depth):
            for key in [k for k in weights if k.startswith(blocks.format(stage, 0))]:
                copy = key.replace(blocks.format(stage, 0), blocks.format(stage, block))
                weights[copy] = weights[key].clone()
    layer = "model.transformer_module.decoder.layers.{}."
    for number in range(2, 6):
        for key in [k for k in weights if k.startswith(layer.format(0))]:
            weights[key.replace(layer.format(0), layer.format(number))] = weights[key].clone()
    save_file(weights, folder / "deeper.safetensors")
    return folder / "deeper.safetensors"
