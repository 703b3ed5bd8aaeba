"""Import Gradio without its stub files, which takes half of the time.

Whenever it is imported, Gradio parses the source of every component's class and compares a stub file for
editors with it. It leaves out classes that have no source file, which is what it is told here of all.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["import_gradio", "without_stub_files"]

_WRITES_STUBS = "gradio.component_meta"


@contextmanager
def without_stub_files() -> Iterator[None]:
    """While this lasts, Gradio finds no source files of components; nobody else is told so."""
    module: Any = inspect
    getfile = module.getfile

    def getfile_of_others(thing: Any) -> str:
        if sys._getframe(1).f_globals.get("__name__") == _WRITES_STUBS:
            raise OSError("No stub file is wanted.")
        return str(getfile(thing))

    module.getfile = getfile_of_others
    try:
        yield
    finally:
        module.getfile = getfile


def import_gradio() -> None:
    """Import Gradio; for whatever starts the page and nothing else."""
    with without_stub_files():
        import gradio  # noqa: F401
