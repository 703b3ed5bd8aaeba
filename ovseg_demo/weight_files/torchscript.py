"""Read the tensors of a TorchScript archive, the form of OpenAI's CLIP files, without running it.

`torch.jit.load` runs the code in such an archive. The weights are a pickle of nested objects and one file per
storage. This reader allows nothing in the pickle but tensors, dictionaries and empty classes in place of the
module classes.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Every tensor attribute of the archived module, under its dotted name.

    Raises:
        pickle.UnpicklingError: the archive holds something that is neither module, container nor tensor.
        KeyError, ValueError, RuntimeError, zipfile.BadZipFile: the archive is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        (pickled,) = [n for n in archive.namelist() if n.count("/") == 1 and n.endswith("/data.pkl")]
        root = _Reader(archive, pickled.removesuffix(".pkl")).load()
    return dict(_tensors(root, ""))


class _Module:
    """Takes the place of any module class; its attributes are the module's."""


class _Reader(pickle.Unpickler):
    def __init__(self, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(io.BytesIO(archive.read(folder + ".pkl")))
        self._archive, self._folder = archive, folder
        self._storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module == "__torch__" or module.startswith("__torch__."):
            return _Module
        allowed: dict[tuple[str, str], Callable[..., Any]] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _rebuild,
        }
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if (module, name) in allowed:
            return allowed[module, name]
        if module == "torch.jit._pickle":  # typed lists and dictionaries: settings, never weights
            return lambda *values: values[0] if values else None
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed here")

    def persistent_load(self, pid: Any) -> Tensor:
        _, dtype, key, _, _ = pid
        if key not in self._storages:
            content = bytearray(self._archive.read(f"{self._folder}/{key}"))
            empty = torch.empty(0, dtype=dtype)
            self._storages[key] = torch.frombuffer(content, dtype=dtype) if content else empty
        return self._storages[key]


def _rebuild(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    return storage.as_strided(size, stride, offset)


def _tensors(module: Any, prefix: str) -> Iterator[tuple[str, Tensor]]:
    for name, value in vars(module).items():
        if isinstance(value, Tensor):
            yield prefix + name, value
        elif isinstance(value, _Module):
            yield from _tensors(value, f"{prefix}{name}.")
