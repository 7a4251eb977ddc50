"""What the options of ``mv3d orbit`` ask for: checked, and as the parts that do it want to be told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mv3d.cameras import sine_orbit
from mv3d.device import pick_device
from mv3d.errors import Mv3dError
from mv3d.options import OrbitOptions

if TYPE_CHECKING:
    from mv3d.generate import GenerateSettings
    from mv3d.lift import LiftSettings


def check_options(options: OrbitOptions, num_pictures: int) -> None:
    """Raise `Mv3dError` for options that contradict each other; imports nothing heavy."""
    given = [name for name in ("faces", "texture_size") if getattr(options, name) != getattr(OrbitOptions, name)]
    if given and not options.mesh:
        raise Mv3dError(
            f"{given[0]} {getattr(options, given[0])} is for a mesh, and none is asked for", argument="mesh"
        )
    if options.mask is not None and num_pictures != 1:
        raise Mv3dError(f"{options.mask} is the mask of one picture, and there are {num_pictures}", argument="mask")
    if options.mask is not None and options.matte != "auto":
        raise Mv3dError(
            f"{options.mask} says where the object is, and so does {options.matte}; leave one of them out",
            argument="matte",
        )


def mesh_settings(options: OrbitOptions) -> LiftSettings:
    """What is asked of the mesh; raises `Mv3dError` for what cannot be."""
    from mv3d.lift import LiftSettings

    device = pick_device(options.device, sparse=True)
    return LiftSettings(faces=options.faces, texture_px=options.texture_size, device=device)


def orbit_settings(options: OrbitOptions, elevation_deg: float) -> GenerateSettings:
    """What is asked of the orbit of a picture that is taken at ``elevation_deg``; raises `Mv3dError` as above."""
    from mv3d.generate import GenerateSettings

    return GenerateSettings(
        num_views=options.num_views,
        elevation_deg=elevation_deg,
        elevations_deg=_swinging(options, elevation_deg),
        steps=options.steps,
        guidance=options.guidance,
        seed=options.seed,
        preview=options.preview,
        decode_chunk=options.decode_chunk,
    )


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
