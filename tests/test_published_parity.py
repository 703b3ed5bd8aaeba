"""Our numbers are the published modules' numbers.

Every case folder of OVSEG_GOLDEN (default ../shared/golden beside the checkout) holds tiny random weights,
and what the published OVSeg modules computed from them. Each `meta.json` says what the tensors are.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from ovseg_demo.clip import MaskAdaptedCLIP, load_clip
from ovseg_demo.clip.mask_prompts import token_mask
from ovseg_demo.published_rules import (
    class_scores,
    demo_names,
    hard_masks,
    keep_picked,
    label_map,
    mask_probabilities,
    merge_published,
)
from ovseg_demo.regions import CropRecipe, Regions, crop_regions

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = (ROOT / os.environ.get("OVSEG_GOLDEN", "../shared/golden")).resolve()
FOLDERS = sorted(path.parent for path in GOLDEN.glob("*/meta.json"))
MAPS = sorted(
    {
        name.removesuffix("_labels")
        for folder in FOLDERS
        for name in safe_open(folder / "expected.safetensors", "pt").keys()  # noqa: SIM118 - no dictionary
        if name.endswith("_labels")
    }
)
TEMPLATE_MODES = {"vild": "vild", "imagenet": "imagenet", "predefined": "single"}

FEATURE_TOLERANCE = 1e-4
LOGIT_TOLERANCE = 2e-3  # a logit is 100 times a cosine
SCORE_TOLERANCE = 1e-4
LABEL_AGREEMENT = 0.999

if "OVSEG_GOLDEN" in os.environ and not FOLDERS:
    raise FileNotFoundError(f"OVSEG_GOLDEN names {GOLDEN}, where no folder holds a meta.json.")
pytestmark = pytest.mark.skipif(
    not FOLDERS, reason="needs the published modules' tensors in ../shared/golden"
)


@dataclass(frozen=True, eq=False)
class Case:
    """One folder: weights, what was done with them, what came out."""

    folder: Path
    checkpoint: Path
    """The case's weights, made whole with the text tower that the cases share."""

    @cached_property
    def meta(self) -> dict[str, Any]:
        shared = json.loads((self.folder.parent / "meta.json").read_text("utf-8"))
        return {**shared, **json.loads((self.folder / "meta.json").read_text("utf-8"))}

    @cached_property
    def expected(self) -> dict[str, Tensor]:
        return load_file(self.folder / "expected.safetensors")

    @cached_property
    def inputs(self) -> dict[str, Tensor]:
        return load_file(self.folder.parent / "inputs.safetensors")

    @cached_property
    def clip(self) -> MaskAdaptedCLIP:
        return load_clip(self.checkpoint)

    @cached_property
    def soft_masks(self) -> Tensor:
        return self.inputs["mask_logits"].float().sigmoid()

    @cached_property
    def regions(self) -> Regions:
        recipe = CropRecipe(
            fill=self.meta["mask_fill"].split()[0], expand_ratio=self.meta["mask_expand_ratio"]
        )
        image = self.inputs["image"].permute(1, 2, 0)
        return crop_regions(image, self.soft_masks > self.meta["mask_threshold"], recipe)

    def image_features(self, prompts: bool) -> Tensor:
        return self.clip.encode_regions(self.regions.crops, self.regions.masks, use_prompts=prompts)

    def text_features(self, mode: str, names: list[str] | None = None) -> Tensor:
        """Of the names, and the no-object embedding last."""
        names = self.meta["names"] if names is None else names
        no_object = functional.normalize(self.inputs["non_object_embedding"], dim=-1)
        return torch.cat([self.clip.encode_text(names, TEMPLATE_MODES[mode]), no_object])

    def logits(self, prompts: bool, mode: str, names: list[str] | None = None) -> Tensor:
        return self.clip.score_scale * self.image_features(prompts) @ self.text_features(mode, names).T


@pytest.fixture(scope="module", params=FOLDERS, ids=lambda folder: folder.name)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder: Path = request.param
    own = torch.load(folder / "clip_openai_format.pt", weights_only=True)
    path = tmp_path_factory.mktemp(folder.name) / "clip.pt"
    torch.save({**({} if "token_embedding.weight" in own else _shared_text_tower()), **own}, path)
    return Case(folder, path)


def _shared_text_tower() -> dict[str, Tensor]:
    for folder in FOLDERS:
        weights = torch.load(folder / "clip_openai_format.pt", weights_only=True)
        if "token_embedding.weight" in weights:
            return {key: value for key, value in weights.items() if not key.startswith("visual.")}
    raise FileNotFoundError(f"No case of {GOLDEN} has a text tower.")


def assert_close(ours: Tensor, published: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(ours, published.to(ours.dtype), atol=tolerance, rtol=0)


def test_every_published_tensor_is_compared_below(case: Case) -> None:
    compared = re.compile(
        r"valid|crop_boxes|regions_every4|regions_unnormalised_every8|regions_mean_std|region_masks_every2"
        r"|token_mask|image_features_(plain|prompted)|text_features_(vild|imagenet|predefined)"
        r"|text_features_raw_tokens_first_template|logits_(plain|prompted)_(vild|imagenet|predefined)"
        r"|clip_class_probs_vild|(semseg|demo)_\w+_(every4|labels)"
    )
    assert [name for name in case.expected if not compared.fullmatch(name)] == []


def test_the_same_masks_are_cropped_with_the_same_boxes(case: Case) -> None:
    assert case.regions.index.tolist() == case.expected["valid"].nonzero().flatten().tolist()
    assert case.regions.boxes.tolist() == case.expected["crop_boxes"].tolist()


def test_crops_and_region_masks_agree(case: Case) -> None:
    crops, masks, published = case.regions.crops, case.regions.masks, case.expected
    assert_close(crops[:, :, ::4, ::4], published["regions_every4"], FEATURE_TOLERANCE)
    statistics = torch.stack([crops.flatten(1).mean(1), crops.flatten(1).std(1)], dim=1)
    assert_close(statistics, published["regions_mean_std"], FEATURE_TOLERANCE)
    mean, std = (torch.tensor(case.meta[f"pixel_{k}_0_255"]).view(3, 1, 1) for k in ("mean", "std"))
    assert_close((crops * std + mean)[:, :, ::8, ::8], published["regions_unnormalised_every8"], 1e-2)
    assert torch.equal(masks[:, ::2, ::2].byte(), published["region_masks_every2"])


def test_token_masks_agree(case: Case) -> None:
    ours = token_mask(case.regions.masks, case.clip.image_tower.patch)
    assert torch.equal(ours.byte(), case.expected["token_mask"].flatten(1))


def test_plain_image_features_agree(case: Case) -> None:
    assert_close(case.image_features(False), case.expected["image_features_plain"], FEATURE_TOLERANCE)


def test_prompted_image_features_agree(case: Case) -> None:
    if case.meta["mask_prompt_depth"] == 0:
        assert not case.clip.has_prompts
        assert torch.equal(case.image_features(True), case.image_features(False))
        return
    assert case.clip.image_tower.prompts is not None
    assert case.clip.image_tower.prompts.depth == case.meta["mask_prompt_depth"]
    assert_close(case.image_features(True), case.expected["image_features_prompted"], FEATURE_TOLERANCE)


@pytest.mark.parametrize("mode", TEMPLATE_MODES)
def test_text_features_agree(case: Case, mode: str) -> None:
    assert_close(case.text_features(mode), case.expected[f"text_features_{mode}"], FEATURE_TOLERANCE)


def test_tokens_agree(case: Case) -> None:
    tokens = case.clip.text_tower.tokens([f"a photo of a {name}." for name in case.meta["names"]])
    assert torch.equal(tokens.int(), case.expected["text_features_raw_tokens_first_template"])


def test_logits_and_class_probabilities_agree(case: Case) -> None:
    for name in (name for name in case.expected if name.startswith("logits_")):
        _, prompts, mode = name.split("_")
        assert_close(case.logits(prompts == "prompted", mode), case.expected[name], LOGIT_TOLERANCE)
    prompts = case.meta["prompts_used_in_the_per_pixel_maps"]
    probabilities = case.logits(prompts, "vild")[:, :-1].softmax(dim=-1)
    assert_close(probabilities, case.expected["clip_class_probs_vild"], SCORE_TOLERANCE)


def weight_in(rule: str) -> float:
    """Of CLIP, from names such as semseg_w07 and demo_5classes_w07; the demo without one has weight 0."""
    found = re.search(r"_w(\d)(\d*)", rule)
    return float(f"{found[1]}.{found[2] or 0}") if found else 0.0


@pytest.mark.parametrize("rule", [name for name in MAPS if name.startswith("semseg")])
def test_maps_of_the_evaluation_rule_agree(case: Case, rule: str) -> None:
    if f"{rule}_labels" not in case.expected:
        pytest.skip("this case has no such map")
    prompts = case.meta["prompts_used_in_the_per_pixel_maps"] and not rule.endswith("noprompt")
    logits = case.logits(prompts, case.meta["template_mode_of_the_per_pixel_maps"])[:, :-1]
    clip_logits, weight = (None, 0.0) if "noclip" in rule else (logits, weight_in(rule))
    given = (clip_logits, case.regions.index)
    segmenter = case.inputs["mask_cls_logits_5"]

    weights = mask_probabilities(len(case.soft_masks), *given, segmenter, weight)
    assert_scores_agree(class_scores(weights, case.soft_masks), case.expected[f"{rule}_every4"])
    maps = merge_published(
        "benchmark",
        case.meta["names"],
        case.soft_masks,
        *given,
        segmenter_logits=segmenter,
        weight=weight,
    )
    assert_labels_agree(torch.from_numpy(maps.label_map.astype("int64")), case.expected[f"{rule}_labels"])


@pytest.mark.parametrize("rule", [name for name in MAPS if name.startswith("demo")])
def test_maps_of_the_demo_rule_agree(case: Case, rule: str) -> None:
    if f"{rule}_labels" not in case.expected:
        pytest.skip("this case has no such map")
    names = case.meta["names"]
    if rule == "demo_1class":
        names = list(demo_names(case.meta["class_names_demo_1class"][:1]))
        assert names == case.meta["class_names_demo_1class"]
    segmenter = case.inputs[f"mask_cls_logits_{len(names)}"]
    masks, index, weight = case.soft_masks, case.regions.index, weight_in(rule)
    if rule.endswith("validonly"):
        masks, segmenter = masks[index], segmenter[index]
        index = torch.arange(len(masks))
    prompts = case.meta["prompts_used_in_the_per_pixel_maps"]
    mode = case.meta["template_mode_of_the_per_pixel_maps"]
    logits = case.logits(prompts, mode, names)[:, :-1]

    weights = mask_probabilities(len(masks), logits, index, segmenter, weight)
    weights = keep_picked(weights, rival=rule == "demo_1class")
    hard = hard_masks(masks, case.meta["mask_threshold"])
    assert_scores_agree(class_scores(weights, hard), case.expected[f"{rule}_every4"])
    assert_labels_agree(label_map(weights, hard), case.expected[f"{rule}_labels"])

    users = names[:1] if rule == "demo_1class" else names
    maps = merge_published(
        "published-demo",
        users,
        masks,
        logits,
        index,
        segmenter_logits=segmenter,
        weight=weight,
        mask_threshold=case.meta["mask_threshold"],
    )
    shown = case.expected[f"{rule}_labels"].clone()
    shown[shown >= len(users)] = 255  # "others" wins there: the published demo paints it, we do not
    assert_labels_agree(torch.from_numpy(maps.label_map.astype("int64")), shown)


def assert_scores_agree(scores: Tensor, published: Tensor) -> None:
    assert_close(scores[:, ::4, ::4], published, SCORE_TOLERANCE)


def assert_labels_agree(labels: Tensor, published: Tensor) -> None:
    """Ours count from 1 and are 0 where the published demo draws nothing, which the files mark with 255."""
    expected = torch.where(published == 255, 0, published.long() + 1)
    assert labels.shape == expected.shape
    assert (labels == expected).float().mean() >= LABEL_AGREEMENT


def test_the_open_clip_training_form_gives_the_same_features(case: Case, tmp_path: Path) -> None:
    stored = case.folder / "clip_open_clip_training_form.pt"
    if not stored.is_file():
        pytest.skip("this case has no training checkpoint")
    checkpoint = torch.load(stored, weights_only=True)
    # Left out of the stored file to save space.
    whole = torch.load(case.checkpoint, weights_only=True)
    checkpoint["state_dict"]["module.token_embedding.weight"] = whole["token_embedding.weight"]
    torch.save(checkpoint, tmp_path / "epoch_5.pt")
    trained = load_clip(tmp_path / "epoch_5.pt")
    features = trained.encode_regions(case.regions.crops, case.regions.masks)
    assert torch.equal(features, case.image_features(True))
    names = case.meta["names"]
    assert torch.equal(trained.encode_text(names), case.clip.encode_text(names))
