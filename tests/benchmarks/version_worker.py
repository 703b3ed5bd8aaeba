"""Segments photos with the package of one checkout, as `versions.py` asks it to; runs by its path.

Reads one JSON line a photo on standard input, {"photo": path, "mirrored": bool, "names": [...],
"labels": path of the answer}, and answers with a line of seconds. A photo that was seen before costs nothing.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import ovseg_demo.devices


def main() -> None:
    """Answer until standard input ends. Arguments: number of threads; "float32" to leave bfloat16 out."""
    torch.set_num_threads(int(sys.argv[1]))
    if "float32" in sys.argv:
        devices: Any = ovseg_demo.devices
        devices.fast_dtype = lambda device: torch.float32  # before other modules take the function over
    from ovseg_demo.segmenter import Segmenter
    from ovseg_demo.settings import Settings

    answers, sys.stdout = sys.stdout, sys.stderr
    with tempfile.TemporaryDirectory() as cache:
        segmenter = Segmenter.from_pretrained("ovseg-mini", settings=Settings(cache_dir=Path(cache)))
        for line in sys.stdin:
            asked = json.loads(line)
            image = np.asarray(Image.open(asked["photo"]).convert("RGB"))
            if asked["mirrored"]:
                image = np.ascontiguousarray(image[:, ::-1])
            wall, cpu = time.perf_counter(), time.process_time()
            result = segmenter(image, asked["names"])
            seconds = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
            np.save(asked["labels"], result.label_map)
            found = [c.found for c in result.classes]
            facts = {"regions": len(result.regions), "found": found, "stages": dict(result.timings)}
            print(json.dumps({**seconds, **facts}), file=answers, flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
