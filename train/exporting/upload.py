"""Upload of a folder to the model hub."""

from __future__ import annotations

import os
from pathlib import Path

from ovseg_demo.errors import OutputError


def push(folder: Path, repository: str, *, private: bool = False) -> str:
    """Upload a folder to the model hub; returns its address. The token is huggingface_hub's own.

    Raises:
        OutputError: the hub refused, or cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    hub = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)
    try:
        address = hub.create_repo(repository, private=private, exist_ok=True)
        hub.upload_folder(
            repo_id=repository,
            folder_path=folder,
            commit_message="Mask-adapted CLIP",
            ignore_patterns=["*.part", "state.pt", "tensorboard/*", "stems_*"],
        )
    except LocalTokenNotFoundError as error:
        raise OutputError("The hub asks who you are: run `hf auth login`, or set HF_TOKEN.") from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise OutputError(f"{folder} could not be uploaded to {repository}: {reason}") from error
    return str(address)
