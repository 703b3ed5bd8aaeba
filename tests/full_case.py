"""A complete OVSeg at tiny size: what the published modules computed, and what this project's do.

Proposer, classifier and merge rules are those of the pipeline.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from ovseg_demo.clip import MaskAdaptedCLIP, load_clip
from ovseg_demo.merging import MergeSettings, Scores, merge
from ovseg_demo.merging.published_rules import (
    class_scores,
    demo_names,
    hard_masks,
    keep_picked,
    mask_probabilities,
)
from ovseg_demo.naming.classifier import Classifier
from ovseg_demo.proposals import Proposals, propose
from ovseg_demo.proposals.maskformer import MaskFormerProposer
from ovseg_demo.proposals.maskformer.network import MaskFormerNetwork, prepare
from ovseg_demo.proposals.maskformer.weights import load_segmenter
from ovseg_demo.regions import Regions, crop_regions
from ovseg_demo.result import Arm
from ovseg_demo.vocabulary import Vocabulary
from tests.golden import case_folders

FULL_FOLDERS = case_folders("OVSEG_GOLDEN_FULL", "network", "../shared/golden_full")

Mode = Literal["eval", "demo"]


def rule_of(tensor: str) -> str:
    """The rule that a map belongs to: its name without what was kept of it."""
    return re.sub(r"_(stride\d+|labels)$", "", tensor)


def _rules() -> list[str]:
    names: set[str] = set()
    for folder in FULL_FOLDERS:
        with safe_open(folder / "full_expected.safetensors", "pt") as file:
            names |= {rule_of(name) for name in file.keys() if name.startswith("semseg_")}  # noqa: SIM118
    return sorted(names)


FULL_RULES = _rules()


@dataclass(frozen=True)
class FullRule:
    """How a map was made, read from its name."""

    demo: bool
    weight: float | None
    """Of CLIP; None = the segmenter alone."""
    arm: Arm
    typed: tuple[str, ...]
    """What the user typed."""

    @classmethod
    def of(cls, rule: str, case: FullCase) -> FullRule:
        demo = "demo" in rule
        digits = re.search(r"ensemble_(\d)(\d*)", rule)
        weight: float | None = float(f"{digits[1]}.{digits[2] or 0}") if digits else 0.0
        typed = tuple(case.meta["demo_1class_names"][:1]) if "1class" in rule else case.names
        return cls(
            demo,
            None if "noclip" in rule else weight,
            "no-prompts" if "noprompt" in rule else "adapted",
            typed,
        )

    @property
    def mode(self) -> Mode:
        return "demo" if self.demo else "eval"


@dataclass(frozen=True, eq=False)
class FullCase:
    """One folder: a complete file, a picture at network size, and the published tensors."""

    folder: Path

    @cached_property
    def meta(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "meta.json").read_text("utf-8")))

    @cached_property
    def expected(self) -> dict[str, Tensor]:
        return load_file(self.folder / "full_expected.safetensors")

    @cached_property
    def inputs(self) -> dict[str, Tensor]:
        return load_file(self.folder / "full_inputs.safetensors")

    @property
    def checkpoint(self) -> Path:
        (path,) = self.folder.glob("*.pth")
        return path

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.meta["class_names"])

    @cached_property
    def image(self) -> NDArray[np.uint8]:
        """(H, W, 3) at network size."""
        return self.inputs["image"].permute(1, 2, 0).contiguous().numpy()

    @cached_property
    def size(self) -> tuple[int, int]:
        """Height and width of the photo that the picture was made from."""
        height, width = self.inputs["original_size"].tolist()
        return height, width

    # --- the segmenter ---

    @property
    def last_stage_stands_in(self) -> bool:
        """Whether the published output of the backbone's last stage replaces ours."""
        return "replaced_stage" in self.meta

    @cached_property
    def _loaded(self) -> tuple[MaskFormerNetwork, Tensor]:
        heads = self.meta.get("config", {}).get("predictor", {}).get("heads")
        network, no_object = load_segmenter(self.checkpoint, decoder_heads=heads)
        if self.last_stage_stands_in:
            tokens = self.expected["res5"].flatten(1).T[None]
            norms: Any = network.model.pixel_level_module.encoder.hidden_states_norms
            norms[-1].register_forward_hook(lambda module, inputs, output: tokens)
        return network, no_object

    @cached_property
    def features(self) -> tuple[Tensor, ...]:
        with torch.inference_mode():
            return self._loaded[0].features(prepare(torch.from_numpy(self.image)))

    @cached_property
    def mask_features(self) -> Tensor:
        with torch.inference_mode():
            return self._loaded[0].mask_features(self.features)

    def threshold(self, mode: Mode) -> float:
        told = self.meta.get("config", {}).get("clip_adapter", {})
        return float(
            told.get(
                {"eval": "threshold_evaluation", "demo": "threshold_demo"}[mode],
                {"eval": 0.4, "demo": 0.35}[mode],
            )
        )

    @cache  # noqa: B019 - a case lives as long as the tests
    def proposals(self, mode: Mode) -> Proposals:
        network, no_object = self._loaded
        proposer = MaskFormerProposer(
            "maskformer",
            network,
            no_object,
            device=torch.device("cpu"),
            mask_threshold=self.threshold(mode),
            short_side=min(self.image.shape[:2]),
        )
        return propose(proposer, self.image)

    # --- CLIP ---

    @cache  # noqa: B019
    def clip(self, arm: Arm) -> MaskAdaptedCLIP:
        return load_clip(self.checkpoint, weights=arm)

    @cache  # noqa: B019
    def classifier(self, arm: Arm) -> Classifier:
        return Classifier(self.clip(arm))

    @cache  # noqa: B019
    def regions(self, mode: Mode) -> Regions:
        return crop_regions(self.image, self.proposals(mode).masks, self.clip("adapted").crop_recipe)

    @cache  # noqa: B019
    def region_features(self, mode: Mode, arm: Arm) -> Tensor:
        """In the order of the proposals."""
        embedded = self.classifier(arm).embed(self.image, self.proposals(mode))
        return torch.from_numpy(embedded.regions)

    def text_features(self, names: tuple[str, ...]) -> Tensor:
        """Of the names, and the no-object feature last."""
        queries = self.proposals("eval").queries
        assert queries is not None
        text = self.classifier("adapted").text([name.strip() for name in names], "vild")
        return torch.from_numpy(np.concatenate([text, queries.no_object[None]]))

    # --- rules ---

    def scores(self, mode: Mode, arm: Arm, names: tuple[str, ...]) -> Scores:
        classifier, proposals = self.classifier(arm), self.proposals(mode)
        features = classifier.embed(self.image, proposals)
        vocabulary = Vocabulary.of(list(names))
        return classifier.score(features, vocabulary, "vild", proposals.queries, with_hidden=False)

    def score_maps(self, rule: FullRule) -> Tensor:
        """(C, h, w) at the photo's size, classes that the demo adds included."""
        queries = self.proposals(rule.mode).queries
        assert queries is not None
        names = demo_names(rule.typed) if rule.demo else rule.typed
        text = self.text_features(names)
        clip_logits = 100 * self.region_features(rule.mode, rule.arm) @ text[:-1].T
        points = torch.nn.functional.normalize(torch.from_numpy(queries.embeddings), dim=-1)
        weights = mask_probabilities(
            len(queries),
            None if rule.weight is None else clip_logits,
            torch.from_numpy(queries.index),
            100 * points @ text.T,
            rule.weight or 0.0,
        )
        masks = queries.soft_masks()
        if rule.demo:
            masks = hard_masks(masks, queries.mask_threshold)
            weights = keep_picked(weights, rival=len(names) > len(rule.typed))
        return class_scores(weights, masks, self.size)

    def labels(self, rule: FullRule) -> NDArray[np.uint16]:
        """(h, w) of the product's own merge, 0 = blank, i = the i-th name."""
        assert rule.weight is not None
        merged = merge(
            "published-demo" if rule.demo else "benchmark",
            self.scores(rule.mode, rule.arm, rule.typed),
            self.proposals(rule.mode),
            rule.typed,
            MergeSettings(),
            ensemble=rule.weight,
            size=self.size,
        )
        return merged.label_map
