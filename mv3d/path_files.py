"""Cameras that a file asks for: key-frames, or those of any transforms.json.

A key-frame file is JSON or YAML: a list of key-frames, each a mapping of ``azimuth``, ``elevation`` and ``lens``
(degrees), ``distance`` (from the object's middle; 2.2 is the picture's) and ``seconds``. What a key-frame does not say
is as in the one before, and in the first as the picture's camera has it; but for ``seconds``, which all others need.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mv3d.camera_paths import OBJECT_RADIUS, KeyFrame, key_frame_path, views_in
from mv3d.cameras import Camera
from mv3d.errors import Mv3dError
from mv3d.files import check_readable_file
from mv3d.transforms import load_cameras

_FIELDS = {
    "azimuth": "azimuth_deg",
    "elevation": "elevation_deg",
    "distance": "distance",
    "lens": "fov_deg",
    "seconds": "seconds",
}
_USUAL_FPS = 24.0
_MOST_KEYS = 1000


@dataclass(frozen=True)
class PathFile:
    """What a file asks for: either key-frames, as far as they are told, or cameras."""

    path: Path
    keys: tuple[dict[str, float], ...] = ()
    targets: tuple[Camera, ...] = ()
    elevation_deg: float | None = None
    """Of the picture's camera, if one of the targets is it; that one stands at azimuth 0."""

    def cameras(self, elevation_deg: float, num_views: int | None, frames_per_second: float | None) -> Sequence[Camera]:
        """The cameras of the views of a picture that is taken at ``elevation_deg``.

        Key-frames give as many views as are asked for, or fit into their time.

        Raises:
            Mv3dError: for key-frames that cannot be, and another number of views than of targets.
        """
        if self.targets:
            if num_views not in (None, len(self.targets)):
                raise Mv3dError(
                    f"{self.path} has {len(self.targets)} cameras, and num_views are {num_views}; leave that out",
                    argument="num_views",
                )
            return self.targets
        try:
            keys, last = [], KeyFrame(elevation_deg=elevation_deg)
            for key in self.keys:
                last = replace(last, **key)
                keys.append(last)
            if num_views is None:
                num_views = views_in(keys, frames_per_second or _USUAL_FPS)
            return key_frame_path(keys, num_views)
        except Mv3dError as error:
            raise Mv3dError(f"{self.path}: {error}") from error

    @property
    def seconds(self) -> float | None:
        """How long the way through key-frames takes."""
        return self.keys[-1].get("seconds", 0.0) - self.keys[0].get("seconds", 0.0) if self.keys else None


def load_path_file(path: Path) -> PathFile:
    """Read a key-frame file, a transforms.json, or the one of an orbit folder.

    Raises:
        Mv3dError: if it is missing, damaged, or asks for what cannot be; the message names the file and the place.
    """
    path = path / "transforms.json" if path.is_dir() else path
    check_readable_file(path)
    known = _parse(path)
    if isinstance(known, dict) and "frames" in known:
        return _targets(path)
    if not isinstance(known, list) or not known:
        raise Mv3dError(f"{path} is neither a transforms.json nor a list of key-frames (docs/own-cameras.md)")
    if len(known) > _MOST_KEYS:
        raise Mv3dError(f"{path} has {len(known)} key-frames; {_MOST_KEYS} are the most")
    return PathFile(path, tuple(_key(path, k, key) for k, key in enumerate(known)))


def _parse(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix.lower() == ".json":
            return json.loads(text)
        import yaml

        try:
            return yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(error) from None
    except FileNotFoundError:
        raise Mv3dError(
            f"there is no path {path}: name turn, swing, spiral, top, zoom, dolly, or a file of cameras",
            argument="path",
        ) from None
    except (OSError, ValueError, RecursionError) as error:  # what is no text is a ValueError, too
        raise Mv3dError(f"{path} cannot be read: {error}") from error


def _key(path: Path, index: int, known: Any) -> dict[str, float]:
    where = f"{path}, key-frame {index + 1}"
    if not isinstance(known, dict):
        raise Mv3dError(f"{where} is {known!r}, and no mapping of {', '.join(_FIELDS)}")
    for name, value in known.items():
        if name not in _FIELDS:
            raise Mv3dError(f"{where} has an unknown {name!r}; there are {', '.join(_FIELDS)}")
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise Mv3dError(f"{where}: {name} is {value!r}, and no number")
    if index and "seconds" not in known:
        raise Mv3dError(f"{where} does not say at how many seconds it is")
    return {_FIELDS[name]: float(value) for name, value in known.items()}


def _targets(path: Path) -> PathFile:
    """The cameras of a transforms.json, in the world of a picture's orbit.

    A file of mv3d's is in it, and its input view is the picture, wherever it stands. Others have units of their own:
    they are scaled so that the first camera frames the object as a picture's does.
    """
    cameras, known = load_cameras(path)
    given = known.get("input_index") if isinstance(known, dict) else None
    if isinstance(given, int) and 0 <= given < len(cameras):
        front = cameras[given]
        turned = tuple(_turned(camera, -front.azimuth_deg) for camera in cameras)
        return PathFile(path, targets=turned, elevation_deg=front.elevation_deg)
    first = cameras[0]
    if not known and first.radius > 0:
        scale = OBJECT_RADIUS / (first.radius * np.sin(np.radians(first.fov_deg / 2)))
        cameras = tuple(_scaled(camera, scale) for camera in cameras)
    for k, camera in enumerate(cameras):
        if camera.radius <= OBJECT_RADIUS:
            raise Mv3dError(
                f"{path}: camera {k} is {camera.radius:g} from the origin, inside the object's sphere, "
                f"{OBJECT_RADIUS:.2f} wide"
            )
    return PathFile(path, targets=cameras)


def _turned(camera: Camera, azimuth_deg: float) -> Camera:
    return camera if azimuth_deg == 0 else camera.turned(azimuth_deg)


def _scaled(camera: Camera, scale: float) -> Camera:
    matrix = np.array(camera.world_from_cam)
    matrix[:3, 3] *= scale
    return replace(camera, world_from_cam=matrix)
