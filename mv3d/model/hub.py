"""A model by name: the bundled one, a folder, a file, or a repository on the Hugging Face hub.

Repositories have the diffusers layout (SVD), or Stability AI's single files at their root (SV3D).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import mv3d
from mv3d.errors import Mv3dError

MINI = "mini"

_INDEX = "model_index.json"
_PAPERS = ("*.json", "LICENSE*", "README.md")
_PREFERRED = "sv3d_p.safetensors"  # of SV3D's two files the one that is told cameras


def resolve_model(name_or_folder: str | Path, revision: str | None = None) -> Path:
    """The folder or file that a model's name stands for; one on the hub is downloaded.

    Args:
        name_or_folder: see the module.
        revision: a branch, tag or commit of a repository on the hub; its main branch if None.

    Raises:
        Mv3dError: if there is none, the hub does not give it, or a revision is asked of what is no repository there.
    """
    place = _place_here(name_or_folder)
    if place is not None and revision is not None:
        raise Mv3dError(
            f"{name_or_folder!s} is not on the hub, so it has no revision {revision}; leave it out, or give owner/name",
            argument="revision",
        )
    if place is not None:
        return place
    if (named := _hub_name(name_or_folder)) is not None:
        return _download(*named, revision)
    raise Mv3dError(
        f"there is no model {name_or_folder!s}; give '{MINI}', a model folder, a .safetensors file of SV3D or SVD, "
        "or owner/name or owner/name/FILE.safetensors on the hub"
    )


def would_be_downloaded(name_or_folder: str | Path) -> bool:
    """Whether a model's name means one on the hub, since nothing of this name is on this machine."""
    return _place_here(name_or_folder) is None and _hub_name(name_or_folder) is not None


def _hub_name(name_or_folder: str | Path) -> tuple[str, str | None] | None:
    """A repository, and the file that is named of it; None for what cannot be on the hub."""
    if not isinstance(name_or_folder, str) or name_or_folder[:1] in ("", ".", "~", "/"):
        return None
    parts = name_or_folder.split("/")
    if len(parts) == 2:
        return name_or_folder, None
    return ("/".join(parts[:2]), parts[2]) if len(parts) == 3 and parts[2].endswith(".safetensors") else None


def _place_here(name_or_folder: str | Path) -> Path | None:
    """The bundled model, or a folder or file on this machine."""
    if name_or_folder == MINI:
        return Path(mv3d.__file__).parent / "checkpoints" / MINI
    place = Path(name_or_folder).expanduser()
    if place.is_dir():
        files = [] if (place / _INDEX).exists() else sorted(path.name for path in place.glob("*.safetensors"))
        return place / _choose(files, str(place)) if files else place
    if place.is_file() and place.suffix == ".safetensors":
        return place
    return None


def _download(repository: str, file: str | None, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    def fetch(*patterns: str) -> Path:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=[*_PAPERS, *patterns]))

    with explained_hub(repository, revision):
        folder = fetch("*/*.fp16.safetensors")
        if file is None and (folder / _INDEX).is_file():
            if not any(folder.glob("unet/*.safetensors")):  # a model of one precision has no files by that name
                folder = fetch("*/*.safetensors")
            return folder
        file = file or _choose(_files_at_root(repository, revision, folder), repository)
        path = fetch(file) / file
    if not path.is_file():
        raise Mv3dError(f"{repository} on the hub has no file {file}")
    return path


@contextmanager
def explained_hub(repository: str, revision: str | None = None) -> Iterator[None]:
    """Turn what the hub's client says of a repository that it does not give into one line.

    Raises:
        Mv3dError: if the block raises such an error, with what is to be done about it.
    """
    from huggingface_hub.errors import HFValidationError

    try:
        yield
    except (OSError, HFValidationError, RuntimeError) as error:  # no connection, no permission, or broken off midway
        raise _explained(error, repository, revision) from error


def _explained(error: Exception, repository: str, revision: str | None) -> Mv3dError:
    from huggingface_hub import constants
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    reasons: list[BaseException] = [error]
    while (before := reasons[-1].__cause__ or reasons[-1].__context__) is not None:
        reasons.append(before)

    def is_any(kind: type[Exception]) -> bool:
        return any(isinstance(one, kind) for one in reasons)

    if is_any(GatedRepoError):
        return Mv3dError(
            f"{repository} is gated, for its weights have a licence of their own: accept it on the model's page, "
            f"{constants.ENDPOINT}/{repository}, then log in with: hf auth login"
        )
    if is_any(RevisionNotFoundError):
        return Mv3dError(
            f"{repository} on the hub has no revision {revision}; give one of its branches, tags or commits",
            argument="revision",
        )
    if is_any(RepositoryNotFoundError):
        return Mv3dError(
            f"there is no folder {repository}, and the hub has no model of this name, or not for you: check the name, "
            "or log in with: hf auth login"
        )
    reason = str(error).strip().splitlines()[0]
    return Mv3dError(f"there is no folder {repository}, and the hub does not give it: {reason}")


def _files_at_root(repository: str, revision: str | None, folder: Path) -> list[str]:
    """Names of the repository's safetensors files outside of folders; without a connection, of those that are here."""
    from huggingface_hub import list_repo_files

    try:
        names: Iterable[str] = list_repo_files(repository, revision=revision)
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
