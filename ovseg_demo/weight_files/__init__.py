"""Read and write files of weights; reading runs no code of the file.

    safetensors                       by its header
    PyTorch, zip or plain pickle      tensors and plain containers only; anything else is refused unread
    TorchScript                       the tensors alone (`torchscript.py`)

The content of the file decides its container, not its name. `clip/checkpoints.py` looks for a CLIP among the
entries, `proposals/maskformer/` for a segmenter.
"""

from ovseg_demo.weight_files.reader import (
    check_finite,
    check_names_and_shapes,
    entries_of,
    file_label,
    first_keys,
    read_file,
    tensor_of,
)
from ovseg_demo.weight_files.writer import write_tensors

__all__ = [
    "check_finite",
    "check_names_and_shapes",
    "entries_of",
    "file_label",
    "first_keys",
    "read_file",
    "tensor_of",
    "write_tensors",
]
