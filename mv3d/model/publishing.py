"""A model or LoRA folder onto the Hugging Face hub, whole or not at all."""

from __future__ import annotations

import re
from pathlib import Path
from typing import cast

from mv3d.errors import Mv3dError
from mv3d.model.lora_file import LORA_FILE, PEFT_FILE

CARD = "README.md"
PLACE = "OWNER/NAME"
"""What a card calls the repository before it is there."""

_WHOLE = ("model_index.json", LORA_FILE, PEFT_FILE)


def push_folder(folder: Path, repository: str, *, private: bool = False, revision: str | None = None) -> str:
    """Upload a folder as one commit; returns its address.

    Args:
        folder: with a model or a LoRA, and a model card that says under which licence it is.
        repository: ``owner/name``; made if it is not there.
        private: make a new one private.
        revision: a branch; made if it is not there.

    Raises:
        Mv3dError: if the folder is none of these, or the hub refuses.
    """
    _check(folder, repository)
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    api, broken_off = HfApi(), cast(tuple[type[Exception], ...], HfHubHTTPError.__bases__)  # the HTTP client's own
    card = (folder / CARD).read_text(encoding="utf-8").replace(PLACE, repository)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not _is_hidden(path.relative_to(folder)))
    changes = [
        CommitOperationAdd(name, card.encode() if name == CARD else path)
        for path in files
        for name in [path.relative_to(folder).as_posix()]
    ]
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repository, branch=revision, exist_ok=True)
        done = api.create_commit(repository, changes, commit_message=f"Add {folder.name} by mv3d", revision=revision)
    except HfHubHTTPError as error:
        code = error.response.status_code
        if code in (401, 403):
            raise Mv3dError(
                f"the hub does not let you write to {repository} (HTTP {code}): log in with a token that may write, "
                "with: hf auth login"
            ) from error
        raise Mv3dError(f"the hub does not take {repository}: {_first_line(error)}") from error
    except (*broken_off, HFValidationError, RuntimeError) as error:  # the last: a file that broke off
        raise Mv3dError(f"the hub does not take {repository}: {_first_line(error)}") from error
    return str(done.commit_url)


def _check(folder: Path, repository: str) -> None:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise Mv3dError(f"{repository} is no repository on the hub; give owner/name")
    if not any((folder / name).is_file() for name in _WHOLE):
        raise Mv3dError(f"{folder} holds neither a model nor a LoRA ({', '.join(_WHOLE)}); name a folder that does")
    card = folder / CARD
    head = card.read_text(encoding="utf-8", errors="replace").split("---")[1:2] if card.is_file() else []
    if not head or not re.search(r"^license:\s*\S", head[0], re.MULTILINE):
        raise Mv3dError(
            f"{folder} has no {CARD} that begins with a license between two lines of ---; training writes one: export "
            "the run again, or write it"
        )


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
