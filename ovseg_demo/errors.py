"""What can go wrong, as one tree.

    OvsegError                 everything this package raises on purpose
    ├── ImageError             a picture that cannot be read, or is too large
    ├── VocabularyError        words that cannot be used: none, too many, too long
    ├── ProposalError          the mask proposer cannot work on this picture
    ├── CorrectionError        corrections, clicks or remembered examples that cannot be used
    ├── ModelError             anything about weights
    │   ├── UnknownModelError  a name that is not in the model table
    │   ├── CheckpointError    a file that is not the weights it should be
    │   └── DownloadError      weights that are not here and could not be fetched
    ├── OutputError            a result that cannot be written
    ├── ResourceError          a request for which memory or time does not suffice
    └── SettingsError          a setting outside its range

Each message is one sentence that a person can act on and holds the offending value, so that the page and
the command line show it as it stands. Visitors of a server read `public`. Messages about weights and files
may name folders of the machine; their `public` is a general sentence unless the place that raises gives one.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "CheckpointError",
    "CorrectionError",
    "DownloadError",
    "ImageError",
    "ModelError",
    "OutputError",
    "OvsegError",
    "ProposalError",
    "ResourceError",
    "SettingsError",
    "UnknownModelError",
    "VocabularyError",
    "quoted",
]

_CANNOT = "This server cannot do that; choose another model, or try again later."


class OvsegError(Exception):
    """Base of every error this package raises on purpose.

    Args:
        message: one sentence for the person who runs the program.
        public: the sentence for visitors of a server; by default `default_public`, or else the message.
    """

    default_public: ClassVar[str | None] = None

    def __init__(self, message: str = "", *, public: str | None = None) -> None:
        super().__init__(message)
        default = message if self.default_public is None else self.default_public
        self.public = default if public is None else public


class ImageError(OvsegError):
    """The picture cannot be read, has no pixels, or is over a limit."""


class VocabularyError(OvsegError):
    """The words cannot be used: there are none, too many, or one is too long."""


class ProposalError(OvsegError):
    """The mask proposer cannot work on this picture."""


class CorrectionError(OvsegError):
    """A corrected region, a click, a remembered example or an opened label file cannot be used."""


class ModelError(OvsegError):
    """Something about a model or its weights."""

    default_public = _CANNOT


class UnknownModelError(ModelError):
    """The name is not in the model table and is no file either."""


class CheckpointError(ModelError):
    """The file is not the weights it should be: wrong hash, wrong keys, wrong shapes, damaged."""


class DownloadError(ModelError):
    """The weights are not on this machine and could not be fetched."""


class OutputError(OvsegError):
    """A result cannot be written where it should go."""

    default_public = _CANNOT


class ResourceError(OvsegError):
    """The request needs more memory or time than there is for it."""


class SettingsError(OvsegError):
    """A setting is outside its range."""


def quoted(value: object, limit: int = 60) -> str:
    """`value` in single quotes, on one line and at most about `limit` characters, for use in a message.

    Characters that do not print (line breaks, control and direction characters, lone surrogates) become
    question marks, so that no input can break the sentence it is quoted in.

    >>> quoted("holiday.jpg")
    "'holiday.jpg'"
    >>> quoted("a\\nb")
    "'a?b'"
    """
    text = "".join(char if char.isprintable() else "?" for char in str(value)[: limit + 1])
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    return f"'{text}'"
