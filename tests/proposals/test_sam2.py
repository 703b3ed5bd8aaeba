"""SAM 2.1 from transformers: a small one of the same make runs and agrees with transformers' own forward."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Sam2Config, Sam2Model

from ovseg_demo.errors import CheckpointError, DownloadError, SettingsError, UnknownModelError
from ovseg_demo.proposals import load_proposer, propose
from ovseg_demo.proposals.prompted import Prompt, promptable
from ovseg_demo.proposals.prompting import PointPromptConfig
from ovseg_demo.proposals.sam2 import Sam2Decoder, load_sam2, pack

EAGER = PointPromptConfig(coarse=4, refine=2, min_quality=-9, min_stability=-1, max_overlap=1)
SIDE, GRID = 128, 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a repository of the hub holds, for a model that is small and random."""
    config = Sam2Config(
        vision_config={
            "backbone_config": {
                "model_type": "sam2_hiera_det_model",
                "hidden_size": 8,
                "num_attention_heads": 1,
                "image_size": [SIDE, SIDE],
                "blocks_per_stage": [1, 1, 2, 1],
                "embed_dim_per_stage": [8, 16, 32, 64],
                "num_attention_heads_per_stage": [1, 2, 4, 8],
                "window_size_per_stage": [8, 4, 14, 7],
                "global_attention_blocks": [3],
                "window_positional_embedding_background_size": [2, 2],
            },
            "backbone_channel_list": [64, 32, 16, 8],
            "backbone_feature_sizes": [[4 * GRID] * 2, [2 * GRID] * 2, [GRID] * 2],
            "fpn_hidden_size": 32,
        },
        prompt_encoder_config={"hidden_size": 32, "image_size": SIDE, "patch_size": 16},
        mask_decoder_config={
            "hidden_size": 32,
            "mlp_dim": 64,
            "num_attention_heads": 2,
            "iou_head_hidden_dim": 32,
        },
    )
    torch.manual_seed(0)
    model = Sam2Model(config).eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)
    path = tmp_path_factory.mktemp("sam2")
    model.save_pretrained(path)
    return path


@pytest.fixture
def model(folder: Path) -> Sam2Model:
    return Sam2Model.from_pretrained(folder).eval()


def test_a_folder_proposes_masks_of_the_photos_size(folder: Path) -> None:
    proposer = load_sam2(str(folder), folder, device=torch.device("cpu"), plan=EAGER)
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    found = propose(proposer, image)
    assert len(found) > 0
    assert found.masks.shape[1:] == (30, 40)


def test_points_are_decoded_as_transformers_does(model: Sam2Model) -> None:
    pixels = torch.randn(1, 3, SIDE, SIDE)
    points = torch.tensor([[10.0, 20.0], [100.0, 64.0]])
    with torch.inference_mode():
        theirs = model(pixels, input_points=points[None, :, None], multimask_output=True)
        decoder = Sam2Decoder(model)
        decoded = decoder.decode(decoder.prepare(pack(model.get_image_embeddings(pixels))), points)
        masks = decoder.masks(decoded, torch.tensor([[True, False, True], [False, True, False]]))
    torch.testing.assert_close(decoded.quality, theirs.iou_scores[0])
    wanted = theirs.pred_masks[0, [0, 0, 1], [0, 2, 1]]
    torch.testing.assert_close(masks, wanted, rtol=1e-4, atol=1e-4)


def test_a_click_and_a_box_find_a_region(folder: Path) -> None:
    proposer = load_sam2(str(folder), folder, device=torch.device("cpu"), plan=EAGER)
    image = np.random.default_rng(1).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    embedding = promptable(proposer).embed_image(image)
    assert embedding.shape[1:] == (GRID, GRID)
    for points, box in (([(20.0, 10.0, True)], None), ([], (5.0, 5.0, 30.0, 25.0))):
        found = proposer.prompt(embedding, Prompt.of(points, box, width=40, height=30), (30, 40))
        assert found.masks.shape[1:] == (30, 40) and found.masks.any(axis=(1, 2)).all()


def test_it_goes_by_its_folder_and_its_weights_are_told(folder: Path) -> None:
    proposer = load_proposer(str(folder))
    assert len(proposer.weights_sha256) == 64
    with pytest.raises(SettingsError, match="its own size"):
        load_proposer(str(folder), size=768)


def test_what_cannot_be_had_is_told(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownModelError, match="write hf-hub:OWNER/NAME"):
        load_proposer("hf-hub:sam2", cache_dir=tmp_path)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DownloadError, match=r"hf-hub:facebook/sam2\.1-hiera-tiny is not on this machine"):
        load_proposer("hf-hub:facebook/sam2.1-hiera-tiny", cache_dir=tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    (other / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    (other / "config.json").write_text(json.dumps({"model_type": "clip"}))
    with pytest.raises(CheckpointError, match="'clip', not a SAM"):
        load_proposer(str(other))
    (other / "config.json").write_text((folder / "config.json").read_text())
    (other / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"no SAM 2\.1 that can be read"):
        load_proposer(str(other))
