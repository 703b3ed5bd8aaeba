"""Part 3: only the right weights are loaded, nothing in a file is run, faults are told apart."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import torch
from safetensors.torch import save_file
from torch import Tensor

from ovseg_demo.errors import OvsegError
from ovseg_demo.models import MODELS, EmbeddedFile, ModelEntry, PackagedFile, local, resolve
from tests.hub_server import ADDRESS, BODY, SHA256, HubServer, running_hub
from tests.robustness.plan import Plan
from tests.robustness.table import Figure, is_sentence

__all__ = ["figures"]

ROOT = Path(__file__).parents[2]


def figures(plan: Plan) -> list[Figure]:
    """Run the part."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        return [
            *_pickles(folder / "pickles"),
            _told_apart(folder / "faults"),
            _swapped(folder / "swapped"),
            _outside_the_table(folder / "outside"),
            _interrupted(folder / "interrupted"),
            _two_processes(folder / "two"),
        ]


class Canary:
    """Leaves a folder behind when a pickle that holds it is read the careless way."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, (str(self.path),)


def _refusal(load: Callable[[], object]) -> str:
    """What a person is told; "" if the file was taken, and a bare class name for any other exception."""
    try:
        load()
    except OvsegError as error:
        return str(error)
    except Exception as error:
        return type(error).__name__
    return ""


def _pickles(folder: Path) -> Iterator[Figure]:
    """Files with code in them, in every form that torch writes, given to every loader."""
    from ovseg_demo.clip import load_clip
    from ovseg_demo.proposals import load_proposer

    folder.mkdir()
    ran = folder / "ran"
    weights = {"visual.conv1.weight": torch.zeros(1), "canary": Canary(ran)}
    torch.save(weights, folder / "new.pt")
    torch.save(weights, folder / "old.pt", _use_new_zipfile_serialization=False)
    (folder / "bare.pt").write_bytes(pickle.dumps(weights))
    (folder / "named.safetensors").write_bytes(pickle.dumps(weights))
    with zipfile.ZipFile(folder / "script.pt", "w") as archive:
        archive.writestr("m/constants.pkl", pickle.dumps(Canary(ran)))
        archive.writestr("m/data.pkl", pickle.dumps(Canary(ran), protocol=2))
        archive.writestr("m/version", "3")
    loaders: dict[str, Callable[[Path], object]] = {
        "clip": load_clip,
        "proposer": lambda path: load_proposer("mobile-sam", weights=path),
    }
    taken, unclear, count = [], [], 0
    for path in sorted(folder.iterdir()):
        for name, load in loaders.items():
            count += 1
            told = _refusal(lambda path=path, load=load: load(path))  # type: ignore[misc]
            if not told or ran.exists():
                taken.append(f"{name} {path.name}")
            if not is_sentence(told):
                unclear.append(f"{name} {path.name}: {told}")
    yield Figure.none_of(count, "pickles with code: run or taken", taken)
    yield Figure.none_of(count, "their refusals: no clear sentence", unclear)


def _told_apart(folder: Path) -> Figure:
    """Each fault of a file has its own words."""
    from ovseg_demo.clip import load_clip
    from ovseg_demo.proposals import load_proposer

    folder.mkdir()
    good = _tiny_clip()
    sam = torch.load(resolve("mobile-sam").path, map_location="cpu", weights_only=True)
    first = next(iter(sam))

    def clip(name: str, weights: dict[str, Tensor], cut: float = 1.0) -> Callable[[], object]:
        path = folder / f"{name}.safetensors"
        save_file(weights, path)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * cut)])
        return lambda: load_clip(path)

    def proposer(name: str, weights: dict[str, Tensor], cut: float = 1.0) -> Callable[[], object]:
        path = folder / f"{name}.pt"
        torch.save(weights, path)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * cut)])
        return lambda: load_proposer("mobile-sam", weights=path)

    nan = {**good, "visual.proj": torch.full_like(good["visual.proj"], torch.nan)}
    bent = {**good, "visual.ln_pre.weight": torch.ones(65)}
    cases: list[tuple[str, Callable[[], object], str]] = [
        ("CLIP cut short", clip("cut", good, 0.7), "cut short"),
        ("CLIP with NaN", clip("nan", nan), "NaN"),
        ("CLIP with a wrong shape", clip("bent", bent), "shape"),
        (
            "CLIP without a weight",
            clip("less", {k: v for k, v in good.items() if k != "visual.proj"}),
            "lacks",
        ),
        ("SAM given as CLIP", clip("sam", {"image_encoder.pos_embed": torch.zeros(1)}), "Segment Anything"),
        ("nothing in it", lambda: load_clip(_empty(folder / "empty.pt")), "empty"),
        ("SAM cut short", proposer("cut", sam, 0.7), "damaged"),
        ("SAM with NaN", proposer("nan", {**sam, first: torch.full_like(sam[first], torch.nan)}), "NaN"),
        ("CLIP given as SAM", proposer("clip", good), "is not mobile-sam"),
    ]
    wrong = []
    for name, load, words in cases:
        told = _refusal(load)
        if words not in told or not is_sentence(told):
            wrong.append(f"{name}: {told or 'taken'}")
    return Figure.none_of(len(cases), "faults of a file that are not told apart", wrong)


def _empty(path: Path) -> Path:
    path.touch()
    return path


def _tiny_clip() -> dict[str, Tensor]:
    """Random weights of the smallest CLIP the loader takes."""
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    vision = CLIPVisionCfg(layers=1, width=64, head_width=64, patch_size=4, image_size=16)
    text = CLIPTextCfg(context_length=77, vocab_size=49408, width=64, heads=1, layers=1)
    state: dict[str, Tensor] = CLIP(32, vision, text, quick_gelu=True).state_dict()
    return {key: value.contiguous() for key, value in state.items() if key != "attn_mask"}


def _swapped(folder: Path) -> Figure:
    """Every model of the table that is here, with another file in its place, is refused by its hash."""
    wrong, count = [], 0
    for entry in MODELS.values():
        for arm, source in entry.sources.items():
            if isinstance(source, EmbeddedFile | PackagedFile):
                count += 1
                told = _refusal(lambda e=entry, a=arm, s=source: _resolve_swapped(folder, e, a, s))  # type: ignore[misc]
                if "is not the published file" not in told:
                    wrong.append(f"{entry.name} {arm}: {told or 'taken'}")
    return Figure.none_of(count, "swapped files of the table that are taken", wrong)


def _resolve_swapped(folder: Path, entry: ModelEntry, arm: str, source: EmbeddedFile | PackagedFile) -> None:
    """Resolve a copy of the table's file of which one byte is another one."""
    real = resolve(entry.name, arm)
    place = folder / entry.name / arm / real.path.name
    place.parent.mkdir(parents=True)
    content = bytearray(real.path.read_bytes())
    content[-1] ^= 1
    place.write_bytes(content)
    sums = real.path.parent / "SHA256SUMS"
    if sums.is_file():
        shutil.copy(sums, place.parent)
    with mock.patch.object(local, "present_file", lambda *_: place):
        resolve(entry.name, arm, cache_dir=folder / "cache")


def _outside_the_table(folder: Path) -> Figure:
    """The page's and the API's choices hold names of the table only: a path is none of them."""
    from ovseg_demo.page.layout import build
    from ovseg_demo.page.server.model_pool import ModelPool
    from ovseg_demo.settings import Settings

    settings = Settings(cache_dir=folder)
    page = build(settings, ModelPool(settings))
    fields = [
        b for b in page.blocks.values() if getattr(b, "label", "") in ("model", "proposer", "CLIP", "Masks")
    ]
    taken = [
        f"{field.label}: {path}"
        for field in fields
        for path in ("/etc/passwd", "checkpoints/ovseg-mini/adapted.safetensors", "../x.pt")
        if not _refused_by_field(field, path)
    ]
    return Figure.none_of(len(fields) * 3, "paths taken as models by page or API", taken)


def _refused_by_field(field: object, value: str) -> bool:
    try:
        field.preprocess(value)  # type: ignore[attr-defined]
    except Exception:
        return True
    return False


# --- downloads --------------------------------------------------------------------------------------------

_GET = """
import sys
from pathlib import Path
from ovseg_demo.models import resolve
from tests.hub_server import PINNED, table
found = resolve("tiny", cache_dir=Path(sys.argv[1]), models=table(PINNED))
print(found.sha256)
"""


def _getter(cache: Path, hub: HubServer) -> subprocess.Popen[str]:
    environment = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HUB_DOWNLOAD_TIMEOUT": "120"}
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", _GET, str(cache)],
        env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip


def _good_files(cache: Path) -> list[str]:
    """Weights in the cache, complete or not; links are not counted."""
    files = [path for path in (cache / "hub").rglob("*") if path.is_file() and not path.is_symlink()]
    return [path.name for path in files if path.stat().st_size > 1000]


def _interrupted(cache: Path) -> Figure:
    """A download is killed on the way, and done again: one good file is there, and nothing else."""
    with running_hub() as hub:
        hub.put(ADDRESS, BODY)
        hub.slowness_s = 60.0
        first = _getter(cache, hub)
        deadline = time.monotonic() + 120
        while not hub.downloads() and time.monotonic() < deadline:
            time.sleep(0.05)
        first.kill()
        first.communicate()
        hub.slowness_s = 0.0
        second = _getter(cache, hub)
        told, _ = second.communicate(timeout=300)
    for part in (cache / "hub").rglob("*.incomplete"):  # removed in time; only their age keeps them
        part.unlink()
    ends_well = second.returncode == 0 and told.strip() == SHA256 and _good_files(cache) == [SHA256]
    return Figure("killed download, then again", str(_good_files(cache)[:3]), "one good file", ends_well)


def _two_processes(cache: Path) -> Figure:
    """Two programs want the same file into the same cache at once."""
    with running_hub() as hub:
        hub.put(ADDRESS, BODY)
        hub.slowness_s = 0.5
        both = [_getter(cache, hub) for _ in range(2)]
        told = [process.communicate(timeout=300)[0].strip() for process in both]
        downloads = len(hub.downloads())
    ends_well = told == [SHA256] * 2 and downloads == 1 and _good_files(cache) == [SHA256]
    return Figure("two processes, one cache", f"{downloads} download(s)", "1, one good file", ends_well)
