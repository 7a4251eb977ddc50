"""How objects are rendered."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from mv3d.cameras import DEFAULT_FOV_DEG
from mv3d.errors import Mv3dError
from mv3d.files import read_json, whole_file

Renderer = Literal["raycast", "cycles"]
CameraPath = Literal[
    "static",
    "dynamic",
    "random",
    "still",
    "orbit-left",
    "orbit-right",
    "pan-left",
    "pan-right",
    "zoom-in",
    "zoom-out",
    "mixed",
]
"""Orbits, and clips of a moving camera; see `render.camera_paths`."""
Pass = Literal["depth", "normal", "albedo", "occupancy"]
"""What can be written beside the frames; see `render.scene.passes`."""
PASSES = get_args(Pass)
_FILE = "settings.json"


@dataclass(frozen=True)
class Settings:
    """How objects are rendered; every orbit of a folder shares it."""

    num_views: int = 21
    size_px: int = 128
    seed: int = 0
    elevation_low_deg: float = -5.0
    elevation_high_deg: float = 30.0
    yaw_deg: float | None = None
    """The object's turn about the vertical; drawn per orbit if None."""
    fov_deg: float = DEFAULT_FOV_DEG
    samples_per_side: int = 2
    """Of the ray caster, in each pixel."""
    renderer: Renderer = "raycast"
    samples: int = 16
    """Of Cycles, in each pixel."""
    environments: str | None = None
    """Folder of pictures all around (.hdr, .exr) that light Cycles' scenes; drawn lamps and sky if None."""
    path: CameraPath = "static"
    azimuths_deg: tuple[float, ...] | None = None
    """Of the views of a static path; evenly spaced if None."""
    passes: tuple[str, ...] = ()
    """What else is written beside the frames, of `PASSES`."""

    def __post_init__(self) -> None:
        if not (1 <= self.num_views <= 1000 and 8 <= self.size_px <= 4096):
            raise Mv3dError(
                f"{self.num_views} views of {self.size_px} px: 1 to 1000 views of 8 to 4096 px are supported"
            )
        if not -89 <= self.elevation_low_deg <= self.elevation_high_deg <= 89:
            raise Mv3dError(
                f"elevation {self.elevation_low_deg} {self.elevation_high_deg}: give LOW HIGH within -89 89",
                argument="elevation",
            )
        if not 1 <= self.samples <= 65536:
            raise Mv3dError(f"{self.samples} samples: give 1 to 65536", argument="samples")
        for value, known in ((self.renderer, get_args(Renderer)), (self.path, get_args(CameraPath))):
            assert value in known, value
        azimuths_deg = self.azimuths_deg
        if azimuths_deg is not None and (self.path != "static" or len(azimuths_deg) != self.num_views):
            raise Mv3dError(
                f"{len(azimuths_deg)} azimuths for {self.num_views} views of a {self.path} path: give one each"
            )
        for name in self.passes:
            if name not in PASSES:
                raise Mv3dError(f"there is no pass {name}; choose from {' '.join(PASSES)}")
        if self.environments is not None and self.renderer != "cycles":
            raise Mv3dError("environments light Cycles' scenes only; render with cycles", argument="renderer")
        if self.environments is not None and not self.environment_pictures():
            raise Mv3dError(
                f"{self.environments} holds no .hdr or .exr picture; name a folder that does", argument="environments"
            )

    def environment_pictures(self) -> list[Path]:
        """The pictures of the folder of environments, in order."""
        folder = Path(self.environments or "")
        found = folder.iterdir() if self.environments is not None and folder.is_dir() else ()
        return sorted(path.resolve() for path in found if path.suffix.lower() in (".hdr", ".exr"))


def check_settings(out: Path, settings: Settings) -> None:
    """Write the settings into a folder of orbits, or raise `Mv3dError` if others are there."""
    path = out / _FILE
    wanted = json.loads(json.dumps(asdict(settings)))
    if path.is_file():
        try:
            made_with = json.loads(json.dumps(asdict(Settings()))) | read_json(path)
        except (OSError, ValueError, TypeError) as error:
            message = f"{path} cannot be read ({error}), which says how the orbits beside it were rendered"
            raise Mv3dError(f"{message}; restore it, or choose another folder", argument="out") from error
        changed = [
            f"{key} {made_with.get(key)} -> {value}" for key, value in wanted.items() if made_with.get(key) != value
        ]
        if changed:
            raise Mv3dError(
                f"{out} was rendered with other settings ({', '.join(changed)}); choose another folder", argument="out"
            )
        return
    with whole_file(path) as partial:
        partial.write_text(json.dumps(wanted, indent=1) + "\n")
