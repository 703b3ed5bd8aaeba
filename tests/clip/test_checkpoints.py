"""One loader reads every form of file and refuses all others in one sentence."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ovseg_demo.clip import load_clip
from ovseg_demo.clip.checkpoints import PROMPTS, build_clip, read_checkpoint, write_checkpoint
from ovseg_demo.errors import CheckpointError
from tests.golden import unpacked


def openai(weights):
    return {**weights, "input_resolution": torch.tensor(16), "context_length": 77, "vocab_size": 49408}


def open_clip_training(weights):
    return {
        "epoch": 5,
        "name": "run",
        "state_dict": weights,
        "optimizer": {"state": {}},
        "scaler": {"scale": 2.0},
    }


def distributed_training(weights):
    return open_clip_training({f"module.{key}": value for key, value in weights.items()})


def detectron2(weights):
    """As detectron2 saves it: an ordered dictionary that carries version metadata."""
    model = OrderedDict((f"clip_adapter.clip_model.{key}", value) for key, value in weights.items())
    model["backbone.patch_embed.proj.weight"] = torch.zeros(4, 3, 4, 4)
    model["backbone.layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(4, 4, dtype=torch.int64)
    model["sem_seg_head.predictor.query_embed.weight"] = torch.zeros(2, 2)
    model["clip_adapter.non_object_embedding"] = torch.zeros(1, 32)
    model["criterion.empty_weight"] = torch.ones(3)
    model._metadata = OrderedDict({"sem_seg_head": {"version": 2}})
    return {"model": model, "iteration": 7}


@pytest.mark.parametrize("form", [dict, openai, open_clip_training, distributed_training, detectron2])
def test_every_form_gives_the_same_weights(form, weights, saved):
    read = read_checkpoint(saved(form(weights)))
    assert read.keys() == weights.keys()
    assert all(torch.equal(read[key], weights[key]) for key in weights)


def test_the_name_of_a_file_does_not_matter(weights, saved):
    assert load_clip(saved(weights, "model.safetensors")).has_prompts


def test_the_old_form_of_torch_files_is_read(weights, tmp_path):
    path = tmp_path / "old.pt"
    torch.save(weights, path, _use_new_zipfile_serialization=False)
    assert read_checkpoint(path).keys() == weights.keys()


def test_half_precision_becomes_float(weights, saved):
    halves = {key: value.half() for key, value in weights.items()}
    read = read_checkpoint(saved(halves))
    assert {value.dtype for value in read.values()} == {torch.float32}
    assert torch.equal(read["visual.proj"], weights["visual.proj"].half().float())


def test_what_is_written_is_read_back(clip, tmp_path, crops_and_masks):
    path = tmp_path / "ours.safetensors"
    write_checkpoint(path, clip.image_tower, clip.text_tower)
    again = load_clip(path)
    assert torch.equal(again.encode_regions(*crops_and_masks), clip.encode_regions(*crops_and_masks))
    assert torch.equal(again.encode_text(["a fox"]), clip.encode_text(["a fox"]))


def test_the_architecture_is_read_off_the_shapes(weights, saved):
    clip = load_clip(saved(weights))
    visual = clip.image_tower.visual
    assert (clip.embed_dim, clip.crop_recipe.size, len(visual.transformer.resblocks)) == (32, 16, 3)
    assert type(visual.transformer.resblocks[0].mlp.gelu).__name__ == "QuickGELU"
    assert type(clip.text_tower.clip.transformer.resblocks[0].mlp.gelu).__name__ == "QuickGELU"


@pytest.mark.parametrize("shape", [(1, 16, 128), (5, 16, 128), (2, 1, 128)])
def test_prompts_of_any_depth(weights, saved, shape):
    weights[PROMPTS] = torch.randn(shape)
    assert load_clip(saved(weights)).image_tower.prompts.mask_embedding.shape == shape


@pytest.mark.parametrize("depth", [None, 0])
def test_no_prompts_or_prompts_of_no_depth_is_a_vanilla_clip(weights, saved, depth):
    if depth is None:
        del weights[PROMPTS]
    else:
        weights[PROMPTS] = torch.zeros(0, 16, 128)
    assert not load_clip(saved(weights)).has_prompts


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_clip(path)
    message = str(caught.value)
    assert path.name in message and message.endswith(".") and "\n" not in message
    return message


def test_missing_weights_are_listed(weights, saved):
    del weights["visual.ln_post.bias"], weights["transformer.resblocks.1.mlp.c_fc.weight"]
    message = refusal(saved(weights))
    assert "lacks visual.ln_post.bias, transformer.resblocks.1.mlp.c_fc.weight" in message


def test_many_missing_weights_are_counted(weights, saved):
    message = refusal(saved({key: value for key, value in weights.items() if key.startswith("visual.")}))
    assert (
        "not a whole CLIP: it lacks positional_embedding, text_projection, token_embedding.weight" in message
    )
    for key in [key for key in weights if key.startswith("visual.transformer.resblocks.0.")]:
        del weights[key]
    message = refusal(saved(weights))
    assert "lacks visual.transformer.resblocks.0." in message
    assert "and 7 more (12 in all)" in message


def test_unknown_weights_are_listed(weights, saved):
    weights["visual.extra.weight"] = torch.zeros(1)
    assert "has unknown visual.extra.weight" in refusal(saved(weights))


def test_a_wrong_shape_is_named(weights, saved):
    weights["visual.ln_pre.weight"] = torch.ones(64)
    message = refusal(saved(weights))
    assert "visual.ln_pre.weight of shape (64,) where (128,) fits" in message


@pytest.mark.parametrize("shape", [(3, 9, 128), (3, 16, 64), (16, 128)])
def test_prompts_that_do_not_fit_are_refused(weights, saved, shape):
    weights[PROMPTS] = torch.zeros(shape)
    assert f"mask prompts of shape {shape}" in refusal(saved(weights))


@pytest.mark.parametrize(
    ("key", "shape", "words"),
    [
        ("visual.positional_embedding", (16, 128), "15 patches"),
        ("visual.conv1.weight", (100, 3, 4, 4), "image tower of width 100"),
        ("positional_embedding", (77, 65), "text tower of width 65"),
        ("token_embedding.weight", (1000, 64), "vocabulary of 1000"),
        ("visual.proj", (128,), r"visual.proj of shape (128,)"),
    ],
)
def test_sizes_no_clip_has_are_refused(weights, saved, key, shape, words):
    weights[key] = torch.zeros(shape)
    assert words in refusal(saved(weights))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_no_numbers_are_named(weights, saved, value):
    weights["visual.proj"] = weights["visual.proj"].clone()
    weights["visual.proj"][3, 4] = value
    assert "NaN or infinite weights in visual.proj" in refusal(saved(weights))


@pytest.mark.parametrize("value", [torch.zeros(128, dtype=torch.int64), [1.0, 2.0], "words"])
def test_entries_that_are_no_weights_are_named(weights, saved, value):
    weights["visual.ln_post.bias"] = value
    message = refusal(saved(weights))
    assert "where weights belong: visual.ln_post.bias" in message


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("visual.layer1.0.conv1.weight", "ResNet"),
        ("visual.trunk.blocks.0.norm1.weight", "timm"),
        ("vision_model.embeddings.class_embedding", "transformers"),
        ("image_encoder.pos_embed", "Segment Anything"),
        ("backbone.patch_embed.proj.weight", "without CLIP"),
    ],
)
def test_other_models_are_recognised(saved, key, kind):
    message = refusal(saved({"model": {key: torch.zeros(1)}}))
    assert kind in message and key in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"weight": torch.zeros(1)}, "its entries are weight"),
        ({}, "its entries are none"),
        ({0: torch.zeros(1)}, "not a dictionary of weights"),
        ([torch.zeros(1)], "holds list"),
        (torch.zeros(1), "holds Tensor"),
    ],
)
def test_other_contents_are_refused(saved, content, words):
    assert words in refusal(saved(content))


@pytest.mark.parametrize("fraction", [0.2, 0.999])
@pytest.mark.parametrize("form", ["zip", "old", "safetensors"])
def test_a_file_that_was_cut_short_says_so(weights, tmp_path, form, fraction):
    path = tmp_path / "clip.bin"
    if form == "safetensors":
        save_file(weights, path)
    else:
        torch.save(weights, path, _use_new_zipfile_serialization=form == "zip")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * fraction)])
    assert "cut short" in refusal(path)


def test_a_header_that_was_cut_short_says_so(weights, tmp_path):
    path = tmp_path / "clip.safetensors"
    save_file(weights, path)
    path.write_bytes(path.read_bytes()[:1000])
    assert "cut short" in refusal(path)


@pytest.mark.parametrize("header", [b'{"a": 1}', b'{"a": [1]}', b'{"a": {"data_offsets": "no"}}'])
def test_a_header_that_makes_no_sense_says_so(tmp_path, header):
    path = tmp_path / "clip.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    assert "cut short or damaged" in refusal(path)


@pytest.mark.parametrize("root", [{"a": 1}, [1], 5])
def test_an_archive_of_torchscript_without_a_module_says_so(tmp_path, root):
    path = tmp_path / "clip.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("clip/constants.pkl", b"")
        archive.writestr("clip/data.pkl", pickle.dumps(root))
    assert "cut short or damaged" in refusal(path)


@pytest.mark.parametrize(
    "content",
    [
        b"<!DOCTYPE html><html>",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00",
        b"\x89PNG\r\n\x1a\n",
    ],
)
def test_a_file_of_another_kind_shows_how_it_begins(tmp_path, content):
    path = tmp_path / "clip.pt"
    path.write_bytes(content)
    message = refusal(path)
    assert "no file of PyTorch or safetensors" in message
    assert content[1:8].decode("latin-1").split("\r")[0] in message


def test_an_empty_file_says_so(tmp_path):
    (tmp_path / "clip.pt").touch()
    assert "is empty" in refusal(tmp_path / "clip.pt")


def test_a_folder_is_no_checkpoint(tmp_path):
    assert "has no adapted.safetensors" in refusal(tmp_path)


def test_a_zip_archive_of_something_else_shows_what_it_has(tmp_path):
    with zipfile.ZipFile(tmp_path / "clip.pt", "w") as archive:
        archive.writestr("word/document.xml", "")
    assert "zip archive without weights: it has word/document.xml" in refusal(tmp_path / "clip.pt")


class Trap:
    """Creates a folder when it is unpickled without checks."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_is_never_run(weights, tmp_path, zipped):
    path, sprung = tmp_path / "clip.pt", tmp_path / "sprung"
    torch.save({**weights, "trap": Trap(sprung)}, path, _use_new_zipfile_serialization=zipped)
    assert "refused" in refusal(path)
    assert not sprung.exists()


def scripted(weights: dict[str, Tensor]) -> torch.jit.ScriptModule:
    """A TorchScript module with these attributes, as OpenAI's files have them."""

    class Branch(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

    root = Branch()
    for key, value in weights.items():
        *path, name = key.split(".")
        owner: nn.Module = root
        for part in path:
            if not hasattr(owner, part):
                owner.add_module(part, Branch())
            owner = owner.get_submodule(part)
        owner.register_parameter(name, nn.Parameter(value))
    return torch.jit.trace(root, torch.zeros(1))


@pytest.mark.filterwarnings("ignore:.torch.jit")
class TestTorchScript:
    def test_an_archive_is_read_without_running_it(self, weights, tmp_path):
        scripted(weights).save(str(tmp_path / "ViT.pt"))
        read = read_checkpoint(tmp_path / "ViT.pt")
        assert read.keys() == weights.keys()
        assert all(torch.equal(read[key], weights[key]) for key in weights)

    def test_half_precision_and_transposed_storage_are_kept(self, weights, tmp_path):
        weights["visual.proj"] = weights["visual.proj"].half().t().contiguous().t()
        scripted(weights).save(str(tmp_path / "ViT.pt"))
        assert torch.equal(
            read_checkpoint(tmp_path / "ViT.pt")["visual.proj"], weights["visual.proj"].float()
        )

    def test_an_archive_with_other_objects_is_refused(self, weights, tmp_path):
        scripted(weights).save(str(tmp_path / "ViT.pt"))
        with zipfile.ZipFile(tmp_path / "ViT.pt") as good, zipfile.ZipFile(tmp_path / "bad.pt", "w") as bad:
            for name in good.namelist():
                trap = pickle.dumps(Trap(tmp_path / "sprung"), protocol=2)
                bad.writestr(name, trap if name.endswith("/data.pkl") else good.read(name))
        assert "refused" in refusal(tmp_path / "bad.pt")
        assert not (tmp_path / "sprung").exists()

    def test_an_archive_without_a_storage_is_damaged(self, weights, tmp_path):
        scripted(weights).save(str(tmp_path / "ViT.pt"))
        with zipfile.ZipFile(tmp_path / "ViT.pt") as good, zipfile.ZipFile(tmp_path / "bad.pt", "w") as bad:
            for name in good.namelist():
                if not name.endswith("/data/3"):
                    bad.writestr(name, good.read(name))
        assert "damaged" in refusal(tmp_path / "bad.pt")


def test_the_complete_published_form_is_recognised():
    """A whole OVSeg at tiny size, in detectron2's form; CLIP is taken out of it."""
    clip = load_clip(unpacked() / "network" / "ovseg_full_tiny.pth")
    assert clip.has_prompts
    assert (clip.embed_dim, clip.image_tower.patch, clip.image_tower.image_size) == (32, 16, 224)


def test_a_complete_file_trained_on_other_pixel_values_is_refused(weights, saved):
    content = detectron2(weights)
    content["model"]["clip_adapter.pixel_mean"] = torch.tensor([122.7709, 116.7460, 104.0937])[None, :, None]
    assert load_clip(saved(content)).has_prompts
    content["model"]["clip_adapter.pixel_mean"] = torch.tensor([0.48, 0.46, 0.41]).view(1, 3, 1, 1)
    assert "other pixel values than CLIP's: clip_adapter.pixel_mean" in refusal(saved(content))


def test_building_takes_the_weights_as_they_are(weights):
    clip, prompts = build_clip(weights, Path("clip.pt"))
    assert clip.visual.proj.data_ptr() == weights["visual.proj"].data_ptr()  # no second copy in memory
    assert prompts is not None and prompts.mask_embedding.data_ptr() == weights[PROMPTS].data_ptr()
