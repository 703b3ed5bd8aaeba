"""Packages that some models need and others do without."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ovseg_demo.errors import ModelError

__all__ = ["TRANSFORMERS", "needs_transformers", "require_transformers"]

TRANSFORMERS = "transformers>=5.20,<6"
"""What to install, as requirements.txt has it."""


@contextmanager
def needs_transformers(what: str) -> Iterator[None]:
    """Turn a failed import of transformers, or of a class that an older one lacks, into one sentence.

    Args:
        what: needs it, as the beginning of the sentence.

    Raises:
        ModelError: the package is missing or too old.
    """
    try:
        yield
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "transformers":
            raise
        raise ModelError(
            f'{what} needs the package transformers; run: pip install "{TRANSFORMERS}".',
            public=f"{what} needs a package that this server lacks; choose another model.",
        ) from error


def require_transformers(what: str) -> None:
    """Ask for transformers before anything is downloaded; raises as `needs_transformers`."""
    with needs_transformers(what):
        import transformers  # noqa: F401
