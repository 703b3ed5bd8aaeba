"""Part 2: whatever is typed becomes clean, distinct names or one sentence, and stays text everywhere."""

from __future__ import annotations

import io
import json
import time
import unicodedata
import zipfile
from pathlib import PurePosixPath

import numpy as np
from PIL import Image

from ovseg_demo.errors import VocabularyError
from ovseg_demo.output.export import EXPORTS, export
from ovseg_demo.output.palette import assign_colours
from ovseg_demo.page.viewer.payload import result_payload
from ovseg_demo.settings import Settings
from ovseg_demo.vocabulary import Vocabulary, fold
from tests.drawn import box_mask, drawn_result
from tests.robustness.plan import Plan
from tests.robustness.table import Figure, is_sentence

__all__ = ["figures", "typed"]

CPU_LIMIT_S = 1.0

_PIECES = (
    "dog", "sofa | couch", "Straße", "STRASSE", "ﬁsh", "fish", "é", "e\u0301", "Å", "A\u030a", "\u212b",
    "עברית", "العربية", "\u202eevil\u202c", "\u2066iso\u2069", "a\u200bb", "\ufeffbom",
    "नमस्ते\u200d", "👩\u200d👩\u200d👧",
    "<b>bold</b>", "<img src=x onerror=alert(1)>", "</script><script>alert(1)</script>", "{{value}}", "${x}",
    "{}", "{0}", "{name!r}", "%s%n", "$(id)", "`id`", "'; DROP TABLE--", "../../etc/passwd", "C:\\con", "\0",
    "\x1b[31mred", "\r\n", "\u2028", "\x85", "\ud800", "\udfff\ud800", "\ufffe", "\U0010ffff", "\u0300" * 30,
    "\u0e33" * 5, "x" * 99, "y" * 101, "z" * 10_000, "㍿", "ﷺ" * 20, "\u3164", "\u2800", "|", "||", ",,",
    "、", "，", "｜",
    "\t \u00a0\u3000", "nan", "null", "true", "__proto__", "constructor", "NaN", "0", "-1", "1e309",
    "<|endoftext|>", "<|startoftext|>", "[CLS]", "[SEP]", "[UNK]", "[MASK]", "[PAD]", "&lt;", "&amp;#x3c;",
    "javascript:alert(1)", "data:text/html,x", "http://example.com/x.png", "@import", "/*", "<!--", "]]>",
)  # fmt: skip


def typed(number: int) -> str:
    """The text with this number: pieces that are known to hurt, and any characters, between separators."""
    rng = np.random.default_rng(number)
    parts: list[str] = []
    for _ in range(int(rng.integers(0, 30))):
        if rng.random() < 0.7:
            parts.append(_PIECES[int(rng.integers(len(_PIECES)))])
        else:
            top = (0x80, 0x800, 0x10000, 0x110000)[int(rng.integers(4))]
            parts.append("".join(map(chr, rng.integers(0, top, int(rng.integers(1, 40))))))
        parts.append(str(rng.choice([",", "\n", " | ", " ", "", "\u3001", "\u2029"])))
    if number % 500 == 499:
        parts.append(", ".join(map(str, range(2000))))
    if number % 500 == 250:
        parts.append("w" * 200_000)
    return "".join(parts)


def figures(plan: Plan) -> list[Figure]:
    """Run the part, but for what needs a browser (see `markup`)."""
    crashes: list[str] = []
    unclear: list[str] = []
    unclean: list[str] = []
    slow: list[str] = []
    kept: list[Vocabulary] = []
    for number in range(plan.vocabularies):
        text = typed(number)
        started = time.process_time()
        try:
            vocabulary = Vocabulary.parse(text)
        except VocabularyError as error:
            if not is_sentence(str(error)):
                unclear.append(f"{number}: {error}")
            continue
        except Exception as error:
            crashes.append(f"{number}: {type(error).__name__} {error}")
            continue
        finally:
            spent = time.process_time() - started
            if spent > CPU_LIMIT_S:
                slow.append(f"{number}: {spent:.1f} s")
        if fault := _fault(vocabulary):
            unclean.append(f"{number}: {fault}")
        kept.append(vocabulary)
    shown = kept[:: max(1, len(kept) // plan.vocabularies_embedded)][: plan.vocabularies_embedded]
    return [
        Figure.none_of(plan.vocabularies, "fuzzed vocabularies: crashes", crashes),
        Figure.none_of(plan.vocabularies, f"fuzzed vocabularies: over {CPU_LIMIT_S:.0f} s", slow),
        Figure.none_of(plan.vocabularies, "refusals that are no clear sentence", unclear),
        Figure.none_of(len(kept), "names that are unclean, doubled or too long", unclean),
        Figure.none_of(len(shown), "names that break an export or the page's data", _broken_files(shown)),
        Figure.none_of(len(shown), "names that break the text tower", _broken_features(shown)),
    ]


def _fault(vocabulary: Vocabulary) -> str:
    """What is wrong with a vocabulary that was accepted; "" if nothing is."""
    names = vocabulary.prompts
    folds = [fold(name) for name in names]
    limits = Settings()
    if len(set(folds)) != len(folds):
        return "two spellings of one name"
    if len(names) > limits.max_names or max(map(len, names)) > limits.max_name_length:
        return "over a limit"
    if any(
        unicodedata.category(c) in ("Cc", "Cs") or c in "\u202e\u202d\u2066\u200b" for n in names for c in n
    ):
        return "a character nobody can see"
    if any(name != name.strip() or not name for name in names):
        return "blanks"
    if Vocabulary.parse(vocabulary.text) != vocabulary:
        return "reads differently when written out"
    return ""


def _broken_files(vocabularies: list[Vocabulary]) -> list[str]:
    """Vocabularies whose names do not come back unchanged from the exports and the page's data."""
    photo = np.full((40, 60, 3), 128, np.uint8)
    bad = []
    for number, vocabulary in enumerate(vocabularies):
        names = list(vocabulary.names)[:60]
        regions = [(i + 1, box_mask((40, 60), i, 0, i + 1, 40)) for i in range(min(len(names), 60))]
        try:
            result = drawn_result(photo, names, regions)
            files = export(result, tuple(EXPORTS), "photo.jpg")
            told = [entry["name"] for entry in json.loads(files["classes.json"])][1:]
            assert told == names, "classes.json"
            assert [c["name"] for c in json.loads(files["coco.json"])["categories"]] == names, "coco.json"
            data = json.loads(json.dumps(result_payload(result)))
            assert [c["name"] for c in data["arms"]["adapted"]["classes"]] == names, "page"
            with zipfile.ZipFile(io.BytesIO(files["photo.zip"])) as archive:
                paths = [PurePosixPath(name) for name in archive.namelist()]
                assert archive.testzip() is None, "zip"
            assert not any(path.is_absolute() or ".." in path.parts for path in paths), "paths in the zip"
            Image.open(io.BytesIO(files["overlay.png"])).load()
            assert len(assign_colours(names)) == len(names), "colours"
        except Exception as error:
            bad.append(f"{number}: {type(error).__name__} {error} for {names!r}")
    return bad


def _broken_features(vocabularies: list[Vocabulary]) -> list[str]:
    """Vocabularies of which a name has no finite unit vector; the text encoder is the real one."""
    import torch

    from ovseg_demo.clip.minilm import MiniTextTower
    from ovseg_demo.clip.text import TEMPLATES, encode_names

    tower = MiniTextTower()
    bad = []
    for number, vocabulary in enumerate(vocabularies):
        try:
            with torch.inference_mode():
                features = encode_names(tower, vocabulary.prompts[:20], TEMPLATES["single"])
            lengths = features.norm(dim=-1)
            assert torch.isfinite(features).all() and torch.allclose(
                lengths, torch.ones(len(features)), atol=1e-4
            )
        except Exception as error:
            bad.append(f"{number}: {type(error).__name__} {error} for {vocabulary.prompts!r}")
    return bad
