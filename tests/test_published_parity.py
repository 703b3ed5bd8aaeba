"""Results equal those of the published modules.

A case is a folder of tiny random weights and of what the published OVSeg modules computed from them: crops,
CLIP and rules, or a complete file with its segmenter. `tests/golden` has one case of each kind;
`../shared/golden` and `../shared/golden_full` have more. OVSEG_GOLDEN and OVSEG_GOLDEN_FULL name other
folders. Each `meta.json` says what the tensors are.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from ovseg_demo.clip import MaskAdaptedCLIP, load_clip
from ovseg_demo.clip.mask_prompts import token_mask
from ovseg_demo.merging.published_rules import (
    class_scores,
    demo_names,
    hard_masks,
    keep_picked,
    label_map,
    mask_probabilities,
    merge_published,
)
from ovseg_demo.proposals.maskformer.config import MaskFormerNetworkConfig, SwinConfig
from ovseg_demo.proposals.maskformer.weights import read_segmenter
from ovseg_demo.regions import CropRecipe, Regions, crop_regions
from tests.full_case import (
    FULL_FOLDERS,
    FULL_RULES,
    FullCase,
    FullRule,
    Mode,
    rule_of,
)
from tests.golden import case_folders

FOLDERS = case_folders("OVSEG_GOLDEN", "crops", "../shared/golden")
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


@dataclass(frozen=True, eq=False)
class Case:
    """One folder: weights, inputs and published results."""

    folder: Path
    checkpoint: Path
    """The case's weights with the text tower that the cases share."""

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
    raise FileNotFoundError("No case has a text tower.")


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
    shown[shown >= len(users)] = 255  # the published demo paints "others", this project leaves it blank
    assert_labels_agree(torch.from_numpy(maps.label_map.astype("int64")), shown)


def assert_scores_agree(scores: Tensor, published: Tensor) -> None:
    assert_close(scores[:, ::4, ::4], published, SCORE_TOLERANCE)


def assert_labels_agree(labels: Tensor, published: Tensor) -> None:
    """Compare label maps: own labels count from 1, 0 = blank; published ones from 0, 255 = blank."""
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


# --- the complete network --------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=FULL_FOLDERS, ids=lambda folder: folder.name)
def full(request: pytest.FixtureRequest) -> FullCase:
    return FullCase(request.param)


def test_every_published_tensor_of_the_network_is_compared_below(full: FullCase) -> None:
    compared = re.compile(
        r"res\d(_corner|_last_corner)?|mask_features(_corner|_last_corner)?|query_embedding|text_features"
        r"|class_logits|mask_logits|valid_(eval|demo)|clip_(image_features|logits|token_mask)_(eval|demo)"
        r"|clip_regions_every\d+|semseg_\w+_(stride\d+|labels)"
    )
    assert [name for name in full.expected if not compared.fullmatch(name)] == []
    assert {rule_of(name) for name in full.expected if name.startswith("semseg_")} <= set(FULL_RULES)


def test_the_architecture_is_the_published_one(full: FullCase) -> None:
    shape = MaskFormerNetworkConfig.of(read_segmenter(full.checkpoint), full.checkpoint)
    told = full.meta.get("config", {}).get("backbone", {})
    backbone = shape.backbone
    assert isinstance(backbone, SwinConfig)
    assert list(backbone.depths) == told.get("depths", list(backbone.depths))
    assert list(backbone.heads) == told.get("heads", list(backbone.heads))
    assert backbone.window == told.get("window", backbone.window)


def test_feature_maps_agree(full: FullCase) -> None:
    maps = {f"res{level + 2}": features[0] for level, features in enumerate(full.features)}
    maps["mask_features"] = full.mask_features[0]
    compared = 0
    for name, published in full.expected.items():
        own = maps.get(re.sub(r"(_last)?_corner$", "", name))
        if own is None or (name == "res5" and full.last_stage_stands_in):
            continue
        height, width = published.shape[1:]
        if name.endswith("_last_corner"):
            own = own[:, -height:, -width:]
        elif name.endswith("_corner"):
            own = own[:, :height, :width]
        assert_close(own, published, 2e-4)
        compared += 1
    assert compared >= 5


def test_queries_and_mask_logits_agree(full: FullCase) -> None:
    queries = full.proposals("eval").queries
    assert queries is not None
    assert_close(torch.from_numpy(queries.embeddings), full.expected["query_embedding"], 2e-4)
    assert_close(torch.from_numpy(queries.logits), full.expected["mask_logits"], 5e-4)


def test_text_features_and_class_logits_agree(full: FullCase) -> None:
    queries = full.proposals("eval").queries
    assert queries is not None
    text = full.text_features(full.names)
    assert_close(text, full.expected["text_features"], FEATURE_TOLERANCE)
    scores = full.scores("eval", "adapted", full.names)
    assert scores.queries is not None
    own = np.delete(scores.queries, -2, axis=1)  # the column of "others", which only one name asks for
    assert_close(torch.from_numpy(own), full.expected["class_logits"], 5e-3)


@pytest.mark.parametrize("mode", ["eval", "demo"])
def test_the_same_queries_are_cropped_and_seen_alike(full: FullCase, mode: Mode) -> None:
    queries = full.proposals(mode).queries
    assert queries is not None
    order = np.argsort(queries.index)
    valid = full.expected[f"valid_{mode}"].nonzero().flatten()
    assert queries.index[order].tolist() == valid.tolist()
    regions = full.regions(mode)
    assert regions.index.tolist() == list(range(len(order)))
    patch = full.clip("adapted").image_tower.patch
    tokens = token_mask(regions.masks, patch)[order].byte()
    assert torch.equal(tokens, full.expected[f"clip_token_mask_{mode}"].flatten(1))
    features = full.region_features(mode, "adapted")[order]
    assert_close(features, full.expected[f"clip_image_features_{mode}"], 2e-4)
    logits = 100 * features @ full.text_features(full.names).T
    assert_close(logits, full.expected[f"clip_logits_{mode}"], 5e-3)
    if mode == "eval":
        for name in (n for n in full.expected if n.startswith("clip_regions_every")):
            step = int(name.removeprefix("clip_regions_every"))
            assert_close(regions.crops[order][:, :, ::step, ::step], full.expected[name], 1e-4)


@pytest.mark.parametrize("rule", FULL_RULES)
def test_score_maps_and_label_maps_of_the_network_agree(full: FullCase, rule: str) -> None:
    stored = [name for name in full.expected if name.startswith("semseg_") and rule_of(name) == rule]
    if not stored:
        pytest.skip("this case has no such map")
    how = FullRule.of(rule, full)
    scores = full.score_maps(how)
    for name in stored:
        if "_stride" in name:
            step = int(name.rpartition("_stride")[2])
            assert_close(scores[:, ::step, ::step], full.expected[name], 1e-3)
    if how.weight is None:
        return  # the segmenter alone: no rule of the product
    labels = torch.from_numpy(full.labels(how).astype("int64"))
    published = full.expected.get(f"{rule}_labels")
    if published is None:  # a map of scores says the same where it was kept
        (name,) = [name for name in stored if "_stride" in name]
        step = int(name.rpartition("_stride")[2])
        labels, published = labels[::step, ::step], full.expected[name].argmax(dim=0)
        published[full.expected[name].amax(dim=0) == 0] = 255
    shown = published.clone()
    shown[(shown >= len(how.typed)) & (shown != 255)] = 255  # pixels of "others" are blank here
    expected = torch.where(shown == 255, 0, shown.long() + 1)
    assert labels.shape == expected.shape
    assert (labels == expected).float().mean() >= (0.999 if how.demo else 0.99)
