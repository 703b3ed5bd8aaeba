"""Fine-tuning and prompt tuning of models of open_clip by name: all of it is in one file afterwards."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from ovseg_demo.clip import load_clip
from ovseg_demo.clip.open_clip_loading import empty_model
from ovseg_demo.errors import ModelError
from tests.train.synthetic_pairs import write_pairs
from train.finetune import FinetuneSettings, finetune
from train.prompt_tune import PromptTuneSettings, prompt_tune

GELU: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 64, "head_width": 32, "layers": 2},
    "text_cfg": {"context_length": 16, "width": 64, "heads": 2, "layers": 1},
}
"""Not OpenAI's architecture: GELU, another context and heads of another width."""


def _folder(path: Path, config: dict[str, Any]) -> Path:
    torch.manual_seed(0)
    path.mkdir()
    record = {"model_cfg": config, "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}}
    (path / "open_clip_config.json").write_text(json.dumps(record), "utf-8")
    save_file(empty_model(config, "tiny").state_dict(), path / "open_clip_model.safetensors")
    return path


def test_finetuned_and_prompted_weights_are_read_back_as_the_same_model(tmp_path: Path) -> None:
    source, pairs = _folder(tmp_path / "tiny", GELU), write_pairs(tmp_path / "pairs", 16)
    shared: dict[str, Any] = {"pairs": (pairs,), "batch": 8, "steps": 3, "distil": 0.0, "warmup": 1}
    finetune(FinetuneSettings(model=str(source), out=tmp_path / "ft", rate=1e-3, **shared))
    prompt_tune(
        PromptTuneSettings(
            model=str(source), start=tmp_path / "ft", out=tmp_path / "mpt", depth=2, rate=0.05, **shared
        )
    )
    vanilla, tuned, adapted = load_clip(source), load_clip(tmp_path / "ft"), load_clip(tmp_path / "mpt")
    assert adapted.has_prompts and not tuned.has_prompts
    assert adapted.crop_recipe == vanilla.crop_recipe and adapted.crop_recipe.pixel_mean == (127.5,) * 3
    names = ["tomato", "a sentence of more words than its short context of sixteen tokens has room for, cut"]
    assert torch.equal(adapted.encode_text(names), vanilla.encode_text(names))
    crops, masks = torch.randn(2, 3, 32, 32), torch.zeros(2, 32, 32)
    masks[:, 8:20] = 1
    looks = [clip.encode_regions(crops, masks) for clip in (vanilla, tuned, adapted)]
    assert not torch.allclose(looks[0], looks[1]) and not torch.allclose(looks[1], looks[2])
    torch.testing.assert_close(adapted.encode_regions(crops, masks, use_prompts=False), looks[1])
    assert adapted.score_scale != pytest.approx(vanilla.score_scale, rel=1e-6)


def test_a_tower_without_tokens_is_finetuned_but_gets_no_prompts(tmp_path: Path) -> None:
    config = deepcopy(GELU)
    config["vision_cfg"] = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32}
    source, pairs = _folder(tmp_path / "rn", config), write_pairs(tmp_path / "pairs", 8)
    shared: dict[str, Any] = {"pairs": (pairs,), "batch": 8, "steps": 2, "distil": 0.0, "warmup": 1}
    finetune(FinetuneSettings(model=str(source), out=tmp_path / "ft", rate=1e-3, **shared))
    assert load_clip(tmp_path / "ft").crop_recipe.size == 64
    with pytest.raises(ModelError, match=r"has no tokens that mask prompts could replace; choose a vision"):
        prompt_tune(PromptTuneSettings(model=str(source), out=tmp_path / "mpt", **shared))


def test_every_listed_model_is_one_of_open_clips_or_a_repository() -> None:
    from ovseg_demo.models import OPEN_CLIP_MODELS, parse_open_clip

    for listed in OPEN_CLIP_MODELS:
        wanted = parse_open_clip(listed.name)
        if wanted.repository:
            assert listed.repository == wanted.repository
        else:
            known = open_clip.get_pretrained_cfg(wanted.architecture, wanted.tag)
            assert listed.repository == known["hf_hub"].rstrip("/")
        assert listed.non_commercial == ("research" in listed.licence)
