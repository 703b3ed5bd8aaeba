"""Rules of the code: direction of imports, modules that load without torch, length of modules."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest

import ovseg_demo

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "ovseg_demo"

# From the lowest layer up. A module imports from lower layers and from its own folder.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("ray_backend",),
    (
        "compute",
        "decompression_limits",
        "devices",
        "files",
        "packages",
        "result",
        "settings",
    ),
    ("imaging", "vocabulary", "progress", "caching"),
    ("models", "output", "weight_files"),
    ("regions", "proposals", "corrections"),
    ("clip", "merging", "memory"),
    ("naming",),
    ("reporting", "evaluation", "analysis", "teaching"),
    ("region_tools",),
    ("segmenter",),
    ("explanation",),
    ("cli_options",),
    ("cli", "page"),
    ("__main__",),
)
# Pairs that do not import each other, whatever their layers.
INDEPENDENT = (("clip", "proposals"), ("clip", "merging"), ("cli", "page"))

MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
TRAIN = sorted((ROOT / "train").rglob("*.py"))
WITHOUT_TORCH = (
    "errors files settings imaging vocabulary models models.hub result cli "
    "output output.export output.label_files output.mask_formats output.palette output.rendering "
    "output.text_drawing corrections memory"
)


def part_of(path: Path) -> str:
    """The module or folder, directly in the package, that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def imports(path: Path) -> set[str]:
    """Full names of all modules that a file imports anywhere, in functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively; write the full name"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def imported_parts(path: Path) -> set[str]:
    """The parts of the package that a file imports from."""
    parts = {name.split(".")[1] for name in imports(path) if name.startswith("ovseg_demo.")}
    known = {part_of(other) for other in MODULES}
    return parts & known


def layer(name: str) -> int:
    return next(level for level, names in enumerate(LAYERS) if name in names)


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def upward(path: Path) -> set[str]:
    """The parts a file imports from that are not in a lower layer."""
    mine = part_of(path)
    return {other for other in imported_parts(path) - {mine} if layer(other) >= layer(mine)}


def test_every_module_has_its_layer() -> None:
    placed = {name for names in LAYERS for name in names}
    assert {part_of(path) for path in MODULES} == placed, "LAYERS names every module, and no other"


def test_imports_run_downwards_only() -> None:
    assert not {shown(path): found for path in MODULES if (found := upward(path))}


@pytest.mark.parametrize("pair", INDEPENDENT, ids="-".join)
def test_independent_modules_do_not_import_each_other(pair: tuple[str, str]) -> None:
    for one, other in (pair, pair[::-1]):
        assert not [shown(path) for path in MODULES if part_of(path) == one and other in imported_parts(path)]


def test_the_package_never_imports_training_or_tests() -> None:
    assert not importers(MODULES, {"train", "tests", "app"})


def test_gradio_is_imported_by_the_page_alone() -> None:
    others = [path for path in (*MODULES, *TRAIN) if not path.is_relative_to(PACKAGE / "page")]
    assert not importers(others, {"gradio", "gradio_client"})


def importers(paths: Iterable[Path], packages: set[str]) -> list[str]:
    """Those of the files that import one of the packages."""
    return [shown(path) for path in paths if {name.split(".")[0] for name in imports(path)} & packages]


def private_imports(path: Path) -> list[str]:
    """Names with a leading underscore that a file takes from other modules."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module != "__future__":
            found += [alias.name for alias in node.names if re.match("_(?!_)", alias.name)]
    return found


def test_what_other_modules_use_has_a_public_name() -> None:
    files = (*MODULES, *TRAIN, *sorted((ROOT / "tests").rglob("*.py")))
    assert not {shown(path): found for path in files if (found := private_imports(path))}


def test_no_module_is_longer_than_400_lines() -> None:
    lengths = {shown(path): len(path.read_text(encoding="utf-8").splitlines()) for path in (*MODULES, *TRAIN)}
    assert not {name: length for name, length in lengths.items() if length > 400}


def run(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, encoding="utf-8", check=True
    )
    return result.stdout


@pytest.mark.parametrize("names", ["", WITHOUT_TORCH], ids=["the package alone", "its light modules"])
def test_torch_and_gradio_are_not_loaded_for_nothing(names: str) -> None:
    loads = "".join(f"import ovseg_demo.{name}; " for name in names.split())
    loaded = run(f"import sys, ovseg_demo; {loads}print(*sys.modules)").split()
    assert {"ovseg_demo", *(f"ovseg_demo.{name}" for name in names.split())} <= set(loaded)
    assert not {"torch", "gradio", "open_clip", "transformers"} & set(loaded)


def test_help_comes_without_torch() -> None:
    loaded = run(
        "import runpy, sys; sys.argv = ['ovseg_demo', '--help']\n"
        "try: runpy.run_module('ovseg_demo', run_name='__main__')\n"
        "except SystemExit as stop: assert not stop.code\n"
        "print(*sys.modules)"
    )
    assert "usage:" in loaded
    assert "torch" not in loaded.split()


# --- what the package offers -----------------------------------------------------------------------------


def test_the_public_names_are_these() -> None:
    assert sorted(ovseg_demo.__all__) == [
        "CheckpointError",
        "ClassResult",
        "Comparison",
        "CorrectedRegion",
        "CorrectionError",
        "DownloadError",
        "ImageError",
        "Memory",
        "ModelError",
        "OutputError",
        "OvsegError",
        "Progress",
        "ProposalError",
        "RegionResult",
        "ResourceError",
        "Segmentation",
        "Segmenter",
        "Settings",
        "SettingsError",
        "UnknownModelError",
        "Vocabulary",
        "VocabularyError",
        "__version__",
        "load_image",
    ]


def test_every_public_name_can_be_had() -> None:
    assert set(ovseg_demo.__all__) <= set(dir(ovseg_demo))
    assert all(getattr(ovseg_demo, name) is not None for name in ovseg_demo.__all__)


def test_other_names_cannot() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        ovseg_demo.Nothing  # noqa: B018


# --- what is installed -----------------------------------------------------------------------------------


def test_one_opencv_wheel_is_installed_and_it_needs_no_window_system() -> None:
    names = {str(found.metadata["Name"]).lower() for found in importlib.metadata.distributions()}
    wheels = {name.replace("_", "-") for name in names if name.startswith("opencv")}
    assert wheels == {"opencv-python-headless"}


def test_what_is_required_is_bounded_on_both_sides() -> None:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    required = [line for line in lines if line and not line.startswith("#")]
    assert required
    for line in required:
        assert re.fullmatch(r"[A-Za-z0-9_-]+(==[\d.]+|>=[\d.]+,<[\d.]+)", line), line


def test_every_package_that_is_imported_is_required() -> None:
    extras = (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("optional-dependencies]")[2]
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8") + extras
    names = re.findall(r"^[ \"]*([A-Za-z0-9_-]+)[\[=<>]", text, re.MULTILINE)
    required = {name.lower().replace("_", "-") for name in names}
    providers = importlib.metadata.packages_distributions()
    files = [*MODULES, ROOT / "app.py", *TRAIN]
    tops = {name.split(".")[0] for path in files for name in imports(path)}
    # `spaces` is there on Hugging Face Spaces alone, and an import that fails is expected elsewhere.
    for top in tops - set(sys.stdlib_module_names) - {"ovseg_demo", "train", "spaces"}:
        packages = {name.lower().replace("_", "-") for name in providers.get(top, [top])}
        assert packages & required, f"{top} is imported, but nothing that is required brings it"


def test_the_readmes_test_command_guards_main() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    guard = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    workflow = (ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8")
    assert 'pip install ".[test]" && python -m pytest' in readme
    assert 'pip install --quiet --no-compile ".[test,dev]"' in guard and "python -m pytest" in guard
    assert ".ci/run" in workflow
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_every_folder_of_code_is_packed() -> None:
    tomllib = pytest.importorskip("tomllib", reason="comes with Python 3.11")
    packed = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["packages"]
    folders = {".".join(path.parent.relative_to(ROOT).parts) for path in PACKAGE.rglob("__init__.py")}
    assert set(packed) == folders | {"ovseg_demo.checkpoints"}
