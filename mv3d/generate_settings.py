"""What can be asked of an orbit: checked, and the cameras that it comes to."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mv3d.camera_paths import OBJECT_RADIUS
from mv3d.cameras import Camera, orbit_through, static_orbit
from mv3d.errors import Mv3dError
from mv3d.model.facts import SampleSettings

MAX_VIEWS = 1000
DEFAULT_ELEVATION_DEG = 10.0
MAX_ELEVATION_DEG = 80.0
SIZES_PX = (16, 2048)


@dataclass(frozen=True)
class GenerateSettings:
    """What can be asked of an orbit; None means the model's own default."""

    num_views: int = 21
    elevation_deg: float = DEFAULT_ELEVATION_DEG
    """Of the picture's camera; the orbit keeps it unless ``elevations_deg`` says otherwise."""
    azimuths_deg: tuple[float, ...] | None = None
    """Of each view, the picture's own first, at 0; an even turn if None."""
    elevations_deg: tuple[float, ...] | None = None
    """Of each view, the picture's own first."""
    steps: int | None = None
    guidance: float | None = None
    seed: int = 0
    path: tuple[Camera, ...] | None = None
    """Cameras of the views in place of the above, see `mv3d.camera_paths`; of their pictures' sizes the aspect counts.
    They stand in the world where the picture's is at azimuth 0 and the usual distance, and need not include it."""
    size_px: int | None = None
    """Of the frames' longer side; if None, the model's."""
    relief: bool = False
    """The picture fills its frame, and becomes a relief."""
    preview: bool = False
    decode_chunk: int | None = None
    """Frames on the device while decoding, see `mv3d.model.decoding.decode_clip`."""

    def __post_init__(self) -> None:
        if not 1 <= self.num_views <= MAX_VIEWS:
            raise Mv3dError(f"num_views {self.num_views} is outside 1 to {MAX_VIEWS}", argument="num_views")
        if not abs(self.elevation_deg) <= MAX_ELEVATION_DEG:
            raise Mv3dError(
                f"elevation {self.elevation_deg:g} is outside +-{MAX_ELEVATION_DEG:g} degrees", argument="elevation"
            )
        for name in ("azimuths_deg", "elevations_deg"):
            values = getattr(self, name)
            if values is not None and len(values) != self.num_views:
                raise Mv3dError(f"{len(values)} {name} for {self.num_views} views; give one for each")
        if self.azimuths_deg is not None and self.azimuths_deg[0] % 360 != 0:
            raise Mv3dError(f"azimuths_deg begin at {self.azimuths_deg[0]:g}; the first view is the picture, at 0")
        for elevation_deg in self.elevations_deg or ():
            if not abs(elevation_deg) <= MAX_ELEVATION_DEG:
                raise Mv3dError(f"a view's elevation of {elevation_deg:g} is outside +-{MAX_ELEVATION_DEG:g} degrees")
        if self.elevations_deg is not None and abs(self.elevations_deg[0] - self.elevation_deg) > 1e-6:
            raise Mv3dError(
                f"elevations_deg begin at {self.elevations_deg[0]:g}, the picture's is {self.elevation_deg:g}"
            )
        if self.path is not None:
            self._check_path(self.path)
        if self.size_px is not None and not SIZES_PX[0] <= self.size_px <= SIZES_PX[1]:
            raise Mv3dError(f"size {self.size_px} is outside {SIZES_PX[0]} to {SIZES_PX[1]} px", argument="size")
        if self.steps is not None and not 1 <= self.steps <= 1000:
            raise Mv3dError(f"steps {self.steps} are outside 1 to 1000", argument="steps")
        if self.decode_chunk is not None and self.decode_chunk < 1:
            raise Mv3dError(f"decode_chunk {self.decode_chunk}: give 1 frame or more", argument="decode_chunk")

    def _check_path(self, path: tuple[Camera, ...]) -> None:
        if self.azimuths_deg is not None or self.elevations_deg is not None:
            raise Mv3dError("a path says where views are, and so do azimuths_deg or elevations_deg; give one of them")
        if len(path) != self.num_views:
            raise Mv3dError(f"a path of {len(path)} cameras for {self.num_views} views; give one for each")
        if len({camera.width_px * path[0].height_px - camera.height_px * path[0].width_px for camera in path}) > 1:
            raise Mv3dError("the cameras of a path have pictures of different aspects; an orbit's have one")
        for k, camera in enumerate(path):
            if camera.radius <= OBJECT_RADIUS:
                raise Mv3dError(
                    f"camera {k} of the path is {camera.radius:g} from the origin, in the object's sphere of radius "
                    f"{OBJECT_RADIUS:.2f}; take it out of there"
                )

    @property
    def sampling(self) -> SampleSettings:
        """What the diffusion stage needs to know."""
        return SampleSettings(self.num_views, self.steps, self.guidance, self.seed, self.decode_chunk)

    @property
    def is_level_turn(self) -> bool:
        """Whether all views stand evenly around at the picture's elevation, as models without poses make them."""
        return self.azimuths_deg is None and self.elevations_deg is None and self.path is None

    def cameras(self, size_px: int) -> tuple[Camera, ...]:
        """The cameras of the orbit, with pictures whose longer side is ``size_px``."""
        if self.path is not None:
            width_px, height_px = self.path[0].width_px, self.path[0].height_px
            longer = max(width_px, height_px)
            # Rounded to pixels, an aspect may change a little: then more or less is seen at the shorter side's ends.
            width_px, height_px = (max(1, round(side * size_px / longer)) for side in (width_px, height_px))
            return tuple(_with_sides(camera, width_px, height_px) for camera in self.path)
        even = static_orbit(self.num_views, self.elevation_deg, size_px=size_px)
        if self.is_level_turn:
            return even
        azimuths = self.azimuths_deg or [camera.azimuth_deg for camera in even]
        return orbit_through(azimuths, self.elevations_deg or [self.elevation_deg] * self.num_views, size_px=size_px)


def _with_sides(camera: Camera, width_px: int, height_px: int) -> Camera:
    scale = max(width_px, height_px) / max(camera.width_px, camera.height_px)
    cx_px = camera.cx_px * scale + (width_px - camera.width_px * scale) / 2
    cy_px = camera.cy_px * scale + (height_px - camera.height_px * scale) / 2
    sides = {"width_px": width_px, "height_px": height_px, "cx_px": cx_px, "cy_px": cy_px}
    return replace(camera, focal_px=camera.focal_px * scale, **sides)
