"""Views of a picture's object from cameras of one's own, and the same cameras as other programs want them.

python examples/02_own_cameras.py --picture assets/house.png --out house_views

The surface behind an orbit can be drawn from anywhere. The diffusion model is good where it was trained, and the
bundled one was on level turns only; so this stops at the surface.
"""

from __future__ import annotations

from pathlib import Path

import tyro

from mv3d.conventions import to_colmap, to_opencv
from mv3d.generate import GenerateSettings, generate_orbit
from mv3d.image import cut_out, frame_picture, load_picture
from mv3d.model.checkpoints import load_model
from mv3d.orbit import save_orbit


def main(picture: Path = Path("assets/house.png"), out: Path = Path("house_views")) -> None:
    """Draw six views: around at the picture's height, then from above."""
    model = load_model("mini")
    framed = frame_picture(cut_out(load_picture(picture)), model.output_px)
    settings = GenerateSettings(
        num_views=6,
        elevation_deg=20.0,
        azimuths_deg=(0.0, 90.0, 180.0, 270.0, 45.0, 225.0),
        elevations_deg=(20.0, 20.0, 20.0, 20.0, 70.0, 70.0),
        preview=True,
    )
    orbit = generate_orbit(framed, model, settings)
    save_orbit(orbit, out)

    camera = orbit.cameras[4]
    cam_from_world, intrinsics = to_opencv(camera)
    print(f"{out}: {len(orbit)} views. The fifth camera, for OpenCV:\n{cam_from_world.round(3)}\n{intrinsics.round(1)}")
    quaternion_wxyz, translation = to_colmap(camera)
    print(f"and for COLMAP: {quaternion_wxyz.round(4)} {translation.round(4)}")


if __name__ == "__main__":
    tyro.cli(main)
