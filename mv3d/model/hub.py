"""A model by name: the bundled one, a folder, a file, or a repository on the Hugging Face hub.

Repositories have the diffusers layout (SVD), or Stability AI's single files at their root (SV3D).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import mv3d
from mv3d.errors import Mv3dError

MINI = "mini"

_INDEX = "model_index.json"
_PAPERS = ("*.json", "LICENSE*", "README.md")
_PREFERRED = "sv3d_p.safetensors"  # of SV3D's two files the one that is told cameras


def resolve_model(name_or_folder: str | Path) -> Path:
    """The folder or file that a model's name stands for; one on the hub is downloaded.

    Raises:
        Mv3dError: if there is none, or the hub does not give it.
    """
    if name_or_folder == MINI:
        return Path(mv3d.__file__).parent / "checkpoints" / MINI
    place = Path(name_or_folder).expanduser()
    if place.is_dir():
        files = [] if (place / _INDEX).exists() else sorted(path.name for path in place.glob("*.safetensors"))
        return place / _choose(files, str(place)) if files else place
    if place.is_file() and place.suffix == ".safetensors":
        return place
    if isinstance(name_or_folder, str) and name_or_folder[:1] not in ("", ".", "~", "/"):
        parts = name_or_folder.split("/")
        if len(parts) == 2 or (len(parts) == 3 and parts[2].endswith(".safetensors")):
            return _download("/".join(parts[:2]), *parts[2:])
    raise Mv3dError(
        f"there is no model {name_or_folder!s}; give '{MINI}', a model folder, a .safetensors file of SV3D or SVD, "
        "or owner/name or owner/name/FILE.safetensors on the hub"
    )


def _download(repository: str, file: str | None = None) -> Path:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    try:
        folder = Path(snapshot_download(repository, allow_patterns=[*_PAPERS, "*/*.fp16.safetensors"]))
        if file is None and (folder / _INDEX).is_file():
            if not any(folder.glob("unet/*.safetensors")):  # a model of one precision has no files by that name
                folder = Path(snapshot_download(repository, allow_patterns=[*_PAPERS, "*/*.safetensors"]))
            return folder
        file = file or _choose(_files_at_root(repository, folder), repository)
        path = Path(snapshot_download(repository, allow_patterns=[*_PAPERS, file])) / file
    except GatedRepoError as error:
        raise Mv3dError(
            f"{repository} is gated, for its weights have a licence of their own: accept it on the model's page, "
            f"{constants.ENDPOINT}/{repository}, then log in with: hf auth login"
        ) from error
    except RepositoryNotFoundError as error:
        raise Mv3dError(
            f"there is no folder {repository}, and the hub has no model of this name, or not for you: check the name, "
            "or log in with: hf auth login"
        ) from error
    except (OSError, HFValidationError) as error:  # the first covers no connection and no permission
        reason = str(error).strip().splitlines()[0]
        raise Mv3dError(f"there is no folder {repository}, and the hub does not give it: {reason}") from error
    if not path.is_file():
        raise Mv3dError(f"{repository} on the hub has no file {file}")
    return path


def _files_at_root(repository: str, folder: Path) -> list[str]:
    """Names of the repository's safetensors files outside of folders; without a connection, of those that are here."""
    from huggingface_hub import list_repo_files

    try:
        names: Iterable[str] = list_repo_files(repository)
    except OSError:
        names = (path.name for path in folder.iterdir())
    return sorted(name for name in names if name.endswith(".safetensors") and "/" not in name)


def _choose(files: list[str], place: str) -> str:
    """The one of a place's single files that is meant when none is named."""
    if len(files) == 1 or _PREFERRED in files:
        return files[0] if len(files) == 1 else _PREFERRED
    if not files:
        raise Mv3dError(f"{place} holds no model: neither {_INDEX} nor a .safetensors file of SV3D or SVD at its root")
    raise Mv3dError(f"{place} holds several models: {', '.join(files)}; name one, as in {place}/{files[0]}")
