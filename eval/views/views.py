"""What is scored: the views of objects, as orbit folders or as other projects write them.

Of one object these are its views: an orbit folder; a folder of numbered pictures (``object/000.png``: Zero123, V3D); a
strip of square pictures side by side (``object.png`` or ``object/0.png``: SyncDreamer, EscherNet); a video
(``object.mp4``: SV3D). Only orbit folders tell their cameras.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from eval.options import Order
from eval.views.pictures import PICTURE_SUFFIXES, VIDEO_SUFFIXES, load_video, series_of
from mv3d.cameras import Camera
from mv3d.conventions import sv3d_order
from mv3d.errors import Mv3dError
from mv3d.frame_files import frame_size, load_frame
from mv3d.orbit import load_orbit
from mv3d.pixels import Frames

ORBIT_FILE = "transforms.json"


@dataclass(frozen=True, eq=False)
class Views:
    """The views of one object: ``frames`` (N, H, W, 4), and the cameras where they are known."""

    frames: Frames
    cameras: tuple[Camera, ...] | None = None
    input_index: int | None = None
    """Which view shows the picture the others were made from; None if nobody says."""

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height."""
        return self.frames.shape[2], self.frames.shape[1]

    @property
    def has_alpha(self) -> bool:
        """Whether any pixel is not opaque."""
        return bool((self.frames[..., 3] < 1).any())


@dataclass(frozen=True)
class ViewSource:
    """Where the views of one object are."""

    path: Path
    kind: Literal["orbit", "pictures", "strip", "video"]

    def load(self, order: Order = "input-first") -> Views:
        """Read the views.

        With ``input-last`` the last view is the input view, as SV3D has it, and becomes the first.

        Raises:
            Mv3dError: if a picture is missing, damaged, of another size than the first or not of eight bits.
        """
        views = self._load()
        if order == "input-first":
            return views
        back = np.argsort(sv3d_order(len(views)))
        cameras = None if views.cameras is None else tuple(views.cameras[k] for k in back)
        return replace(views, frames=views.frames[back], cameras=cameras, input_index=0)

    def _load(self) -> Views:
        if self.kind == "orbit":
            orbit = load_orbit(self.path, exact=True)
            return Views(orbit.frames, orbit.cameras, orbit.facts.input_index)
        if self.kind == "video":
            return Views(load_video(self.path))
        if self.kind == "strip":
            strip = load_frame(self.path, exact=True)
            return Views(np.ascontiguousarray(np.stack(np.split(strip, strip.shape[1] // strip.shape[0], axis=1))))
        paths = series_of(_pictures_in(self.path))
        frames = [load_frame(path, exact=True) for path in paths]
        for path, frame in zip(paths, frames, strict=True):
            if frame.shape != frames[0].shape:
                sizes = " and ".join(f"{f.shape[1]}x{f.shape[0]}" for f in (frame, frames[0]))
                raise Mv3dError(f"{path} and the first view differ in size: {sizes} px; write all views at one size")
        return Views(np.stack(frames))


def find_views(root: Path) -> dict[str, ViewSource]:
    """All objects' views below ``root`` by relative path, sorted; a single object is called ``.``.

    Raises:
        Mv3dError: if there is no such file or folder, or nothing in it.
    """
    if not root.exists():
        raise Mv3dError(f"{root} does not exist; give an orbit folder, a folder of views, or a folder of either")
    if root.is_file():
        return {".": _source_of_file(root)}
    found: dict[str, ViewSource] = {}
    for where, folders, files in os.walk(root):
        folder = Path(where)
        name = folder.relative_to(root).as_posix()
        if ORBIT_FILE in files:
            found[name] = ViewSource(folder, "orbit")
            folders.clear()
            continue
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        found |= _loose_views(folder, name, sorted(f for f in files if not f.startswith(".")))
    if not found:
        raise Mv3dError(f"{root} holds no views: no {ORBIT_FILE}, no numbered pictures, no strip, no video below it")
    return dict(sorted(found.items()))


def object_of(name: str) -> str:
    """The object that an orbit shows: the path above its number, or the path itself where there is no number."""
    above, _, last = name.rpartition("/")
    return above if above and last.isdigit() else name


def _loose_views(folder: Path, name: str, files: list[str]) -> dict[str, ViewSource]:
    videos = [folder / f for f in files if Path(f).suffix.lower() in VIDEO_SUFFIXES]
    pictures = [folder / f for f in files if Path(f).suffix.lower() in PICTURE_SUFFIXES]
    kinds = {path: _is_strip(path) for path in pictures}
    plain = [path for path in pictures if kinds[path] is False]
    strips = [path for path in pictures if kinds[path] or (kinds[path] is None and True in kinds.values())]
    if strips and plain:
        names = f"({strips[0].name}) and single ones ({plain[0].name})"
        raise Mv3dError(f"{folder} mixes strips of views {names}; part them")
    if pictures and not strips:
        return {name: ViewSource(folder, "pictures")}
    inside = "" if name == "." else f"{name}/"
    if len(strips) == 1 and not videos and strips[0].stem.isdigit() and name != ".":
        return {name: ViewSource(strips[0], "strip")}
    found = {inside + path.stem: ViewSource(path, "strip") for path in strips}
    return found | {inside + path.stem: ViewSource(path, "video") for path in videos}


def _source_of_file(path: Path) -> ViewSource:
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return ViewSource(path, "video")
    if path.suffix.lower() in PICTURE_SUFFIXES and _is_strip(path) is not False:  # an unreadable one is named so later
        return ViewSource(path, "strip")
    raise Mv3dError(f"{path} is neither a video nor a strip of square views; give a folder of numbered pictures")


def _is_strip(path: Path) -> bool | None:
    """Whether a picture is a strip; None if it cannot be read, which is its object's failure when it is loaded."""
    try:
        width, height = frame_size(path)
    except Mv3dError:
        return None
    return width >= 2 * height and width % height == 0


def _pictures_in(folder: Path) -> list[Path]:
    return [
        path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".")
    ]
