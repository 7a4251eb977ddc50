"""What the options of ``mv3d orbit`` ask for: checked, and as the parts that do it want to be told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from mv3d.camera_paths import PathName, named_path
from mv3d.cameras import Camera, sine_orbit
from mv3d.device import pick_device
from mv3d.errors import Mv3dError
from mv3d.more_pictures import parse_views
from mv3d.options import OrbitOptions
from mv3d.path_files import PathFile, load_path_file

if TYPE_CHECKING:
    from mv3d.generate import GenerateSettings
    from mv3d.lift import LiftSettings

_FPS = (1.0, 120.0)
_RELIEF_SWING_DEG = 18.0  # before a picture that fills its frame, which has no other sides


def check_options(options: OrbitOptions, num_pictures: int) -> None:
    """Raise `Mv3dError` for options that contradict each other; imports nothing heavy."""
    of_mesh = ("faces", "texture_size", "delight")
    given = [name for name in of_mesh if getattr(options, name) != getattr(OrbitOptions, name)]
    if given and not options.mesh:
        what = given[0] if given[0] == "delight" else f"{given[0]} {getattr(options, given[0])}"
        raise Mv3dError(f"{what} is for a mesh, and none is asked for", argument="mesh")
    if options.mask is not None and num_pictures != 1:
        raise Mv3dError(f"{options.mask} is the mask of one picture, and there are {num_pictures}", argument="mask")
    if options.mask is not None and options.matte != "auto":
        raise Mv3dError(
            f"{options.mask} says where the object is, and so does {options.matte}; leave one of them out",
            argument="matte",
        )

    if options.fps is not None and not _FPS[0] <= options.fps <= _FPS[1]:
        raise Mv3dError(f"fps {options.fps:g} is outside {_FPS[0]:g} to {_FPS[1]:g}", argument="fps")
    if options.swing and options.path not in ("turn", "swing"):
        raise Mv3dError(
            f"a swing of {options.swing:g} is for path turn or swing, not for {options.path}", argument="swing"
        )
    if options.view and num_pictures != 1:
        raise Mv3dError(f"{options.view[0]} shows one object, and there are {num_pictures} pictures", argument="view")
    parse_views(options.view)
    _file_of(options)


def video_fps(options: OrbitOptions, num_views: int) -> float | None:
    """Frames per second of the video of an orbit: as asked for, or as a file's key-frames want it; None for any."""
    seconds = None if (file := _file_of(options)) is None else file.seconds
    return options.fps or (num_views / seconds if seconds else None)


def mesh_settings(options: OrbitOptions) -> LiftSettings:
    """What is asked of the mesh; raises `Mv3dError` for what cannot be."""
    from mv3d.lift import LiftSettings

    device = pick_device(options.device, sparse=True)
    return LiftSettings(faces=options.faces, texture_px=options.texture_size, delight=options.delight, device=device)


def orbit_settings(options: OrbitOptions, elevation_deg: float) -> GenerateSettings:
    """What is asked of the orbit of a picture that is taken at ``elevation_deg``; raises `Mv3dError` as above.

    A file of cameras that has the picture's among them knows better, unless the options say the elevation.
    """
    from mv3d.generate import GenerateSettings

    file = _file_of(options)
    if file is not None and file.elevation_deg is not None and options.elevation == "auto":
        elevation_deg = file.elevation_deg
    relief = options.matte == "none"
    if relief and options.elevation == "auto":
        elevation_deg = 0.0  # paintings are looked at straight
    settings = GenerateSettings(
        num_views=options.num_views,
        elevation_deg=elevation_deg,
        elevations_deg=_swinging(options, elevation_deg) if options.path == "turn" and not relief else None,
        size_px=options.size,
        steps=options.steps,
        guidance=options.guidance,
        seed=options.seed,
        relief=relief,
        preview=options.preview or relief,  # drawn in its own pixels, to which no model of objects has anything to add
        decode_chunk=options.decode_chunk,
    )
    if options.path == "turn" and relief:
        path = named_path("swing", max(1, options.num_views), elevation_deg, options.swing or _RELIEF_SWING_DEG)
        return replace(settings, path=path)
    if options.path == "turn":
        return settings
    path = _path(options, file, elevation_deg)
    return replace(settings, path=path, num_views=len(path))


def _path(options: OrbitOptions, file: PathFile | None, elevation_deg: float) -> tuple[Camera, ...]:
    if file is None:
        name: PathName = next(name for name in get_args(PathName) if name == options.path)
        return named_path(name, options.num_views, elevation_deg, options.swing or None)
    given = None if options.num_views == OrbitOptions.num_views else options.num_views
    return tuple(file.cameras(elevation_deg, given, options.fps))


def _file_of(options: OrbitOptions) -> PathFile | None:
    return None if options.path in get_args(PathName) else load_path_file(Path(options.path))


def _swinging(options: OrbitOptions, elevation_deg: float) -> tuple[float, ...] | None:
    """The elevation of each view where the camera swings (SV3D, section 4: +-30 degrees for lifting)."""
    if options.swing == 0 or options.num_views < 1:  # the settings refuse the latter
        return None
    from mv3d.generate import MAX_ELEVATION_DEG

    steepest_deg = abs(elevation_deg) + abs(options.swing)
    if not steepest_deg <= MAX_ELEVATION_DEG:
        raise Mv3dError(
            f"a swing of {options.swing:g} about elevation {elevation_deg:g} reaches {steepest_deg:g} degrees; "
            f"stay within {MAX_ELEVATION_DEG:g}",
            argument="swing",
        )
    cameras = sine_orbit(options.num_views, elevation_deg, options.swing, size_px=1)
    return tuple(camera.elevation_deg for camera in cameras)
