"""Which pictures, or words, become which orbit folders."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mv3d.errors import Mv3dError
from mv3d.orbit import is_made
from mv3d.prompt import Prompt

MESH_NAME = "mesh.glb"
_PICTURE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".webp", ".avif", ".tif", ".tiff", ".bmp", ".gif", ".jp2", ".tga"}
)

# How files are called, and an orbit, which is a folder, is not.
_FILE_SUFFIXES = _PICTURE_SUFFIXES | {
    *(".glb", ".gltf", ".obj", ".ply", ".stl", ".usd", ".usda", ".usdc", ".usdz", ".blend", ".fbx"),
    *(".mp4", ".mov", ".mkv", ".webm", ".json", ".npz", ".zip"),
}


@dataclass(frozen=True)
class Job:
    """One picture and the orbit folder it becomes."""

    picture: Path
    folder: Path
    prompt: Prompt | None = None
    """What the picture shows, if it is made of words: then it is made as ``picture``, unless it is there."""


def plan_jobs(given: Sequence[Path], out: Path | None) -> tuple[Job, ...]:
    """Name the orbit folder of every picture.

    One picture becomes ``out``, or ``<stem>_orbit`` in the current folder. Of several, or of a folder of them, ``out``
    is the root of a tree that mirrors the pictures'.

    Raises:
        Mv3dError: if there is no picture, two would become the same folder, or ``out`` is called as a file is.
    """
    if not given:
        raise Mv3dError("name a picture, or a folder of pictures")
    if out is not None and out.suffix.lower() in _FILE_SUFFIXES:
        raise Mv3dError(
            f"{out}: an orbit is a folder, which is not called {out.suffix}; name it {out.with_suffix('')}, and make "
            f"files of it by mv3d lift or mv3d export, or have a {MESH_NAME} in it",
            argument="mesh",
        )
    if not is_batch(given):
        return tuple(Job(path, out or Path(f"{path.stem}_orbit")) for path in given)
    jobs: dict[Path, Job] = {}
    for path in given:
        for picture in _find_pictures(path) if path.is_dir() else [path]:
            below = picture.relative_to(path if path.is_dir() else path.parent)
            folder = (out or Path()) / below.with_name(f"{below.stem}_orbit")
            if folder in jobs:
                raise Mv3dError(f"{jobs[folder].picture} and {picture} would both become {folder}; rename one")
            jobs[folder] = Job(picture, folder)
    if not jobs:
        raise Mv3dError(f"there is no picture in {', '.join(map(str, given))}")
    return tuple(jobs.values())


def plan_prompt(prompt: Prompt, out: Path | None, place: Path) -> Job:
    """Name the orbit folder of words, which becomes ``out``, or their name with _orbit in the current folder.

    ``place`` is a folder for the picture; raises `Mv3dError` as `plan_jobs`.
    """
    picture = place / f"{prompt.name}.png"
    (job,) = plan_jobs([picture], out)
    return replace(job, prompt=prompt)


def is_batch(given: Sequence[Path]) -> bool:
    """Tell whether the command line names more than one picture file."""
    return len(given) > 1 or given[0].is_dir()


def _find_pictures(folder: Path) -> Iterator[Path]:
    """All pictures below a folder, sorted, but for hidden folders and orbit folders (their frames are no input)."""
    for root, folders, files in os.walk(folder):
        if is_made(Path(root)):
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if Path(name).suffix.lower() in _PICTURE_SUFFIXES and not name.startswith("."):
                yield Path(root, name)
