"""Write trained weights in the layout that the demo loads, and bring them to other people.

    python -m train.export --weights runs/prompt_tune --out exported --metrics msrc21.json
    python -m train.export --weights exported --out ovseg_clip.pt --form ovseg
    python -m train.export --weights ovseg_clip.pt --out exported --push-to-hub me/my-clip

The layout: `adapted.safetensors` (and `vanilla.safetensors`), `config.json`, a model card, `SHA256SUMS`.
Other forms are one file: "openai" is OpenAI's flat dictionary with the mask prompts as
`visual.mask_embedding`, "ovseg" the published OVSeg training checkpoint, the same names behind "module.";
"full" is a complete OVSeg file with its CLIP replaced by this one (`exporting/full_checkpoint.py`).
Every number stays as it is.
"""

from __future__ import annotations

from train.core.options import run_command
from train.exporting.folder import write_folder
from train.exporting.full_checkpoint import put_clip
from train.exporting.published_forms import vit_entries, write_published
from train.exporting.settings import ExportSettings
from train.exporting.upload import push
from train.exporting.weights import arm_file


def export(settings: ExportSettings) -> None:
    """Write the folder or the file, and upload it if asked."""
    if settings.into is not None:
        put_clip(vit_entries(arm_file(settings.weights)), settings.into, settings.out)
        print(f"Wrote {settings.out}: --model {settings.out} --proposer maskformer")
        return
    if settings.form in ("openai", "ovseg"):
        write_published(settings.weights, settings.out, settings.form)
        print(f"Wrote {settings.out}")
        return
    write_folder(settings)
    print(f"Wrote {settings.out}: python -m ovseg_demo segment PHOTO --model {settings.out} ...")
    if settings.push_to_hub:
        print(f"Uploaded to {push(settings.out, settings.push_to_hub, private=settings.private)}")


if __name__ == "__main__":
    run_command(export, ExportSettings, prog="train.export")
