"""Read a file of weights in any container, without running anything that is in it.

    safetensors                       by its header
    PyTorch, zip or plain pickle      tensors and plain containers only; anything else is refused unread
    TorchScript                       the tensors alone (`torchscript.py`)

The container is recognised by what is in the file, never by its name. What the entries mean is for others:
`clip/checkpoints.py` finds a CLIP in them, `proposals/maskformer/` a segmenter.
"""

from ovseg_demo.weight_files.reader import (
    check_finite,
    check_names_and_shapes,
    entries_of,
    named,
    read_file,
    some,
    tensor_of,
)
from ovseg_demo.weight_files.writer import write_tensors

__all__ = [
    "check_finite",
    "check_names_and_shapes",
    "entries_of",
    "named",
    "read_file",
    "some",
    "tensor_of",
    "write_tensors",
]
