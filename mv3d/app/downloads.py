"""What can be taken home of a result: files that are there, and formats that are written when somebody asks."""

from __future__ import annotations

import threading
import zipfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from mv3d.app.results import PageResult
from mv3d.blender import find_blender
from mv3d.errors import Mv3dError
from mv3d.export import export_source
from mv3d.files import whole_file

_writing = threading.Lock()  # a format is written once, whoever asks meanwhile


@dataclass(frozen=True)
class Download:
    """Something to take home."""

    key: str
    """What it is called in its address."""
    label: str
    ending: str
    """Of the file's name, after the picture's."""
    is_mesh: bool = True


DOWNLOADS = {
    one.key: one
    for one in (
        Download("video", "Video", ".mp4", is_mesh=False),
        Download("frames", "Frames + cameras", "_orbit.zip", is_mesh=False),
        Download("glb", "GLB", ".glb"),
        Download("usdz", "USDZ", ".usdz"),
        Download("stl", "STL", ".stl"),
        Download("blend", "Blender", ".blend"),
        Download("mask", "Mask", "_mask.png", is_mesh=False),
    )
}


def offered(result: PageResult) -> list[Download]:
    """What there is of a finished result, with what is installed here."""
    lacking = set() if find_spec("pxr") else {"usdz"}
    try:
        find_blender()
    except Mv3dError:
        lacking.add("blend")
    if result.mask is None:
        lacking.add("mask")
    return [one for one in DOWNLOADS.values() if one.key not in lacking and (result.mesh or not one.is_mesh)]


def file_of(result: PageResult, key: str) -> tuple[Path, str]:
    """The file of a download, written now if it is not there yet, and what to call it.

    Raises:
        Mv3dError: if there is no such download of this result.
    """
    if key not in DOWNLOADS:
        raise Mv3dError(f"there is no download {key[:20]}; take one of {', '.join(DOWNLOADS)}")
    download = DOWNLOADS[key]
    if not result.is_finished or (download.is_mesh and result.mesh is None):
        lacking = "mesh" if result.is_finished else "orbit"
        raise Mv3dError(f"{key}: there is no {lacking} of {result.name}; make it first")
    called = f"{result.picture.stem}{download.ending}"
    if key == "mask":
        if result.mask is None:
            raise Mv3dError(f"{result.name} was cut out without a mask; brush one")
        return result.mask, called
    if key == "video":
        return next(result.orbit.glob("*.mp4")), called
    if key == "glb" and result.mesh is not None:
        return result.mesh, called
    path = result.folder / "downloads" / f"{key}{Path(called).suffix}"
    with _writing:
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            if key == "frames":
                _zip_folder(result.orbit, path, f"{result.picture.stem}_orbit")
            else:
                export_source(result.orbit, path)
    return path, called


def _zip_folder(folder: Path, path: Path, called: str) -> None:
    """Pack an orbit folder, so that it unpacks to one folder."""
    with whole_file(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, f"{called}/{file.relative_to(folder).as_posix()}")
