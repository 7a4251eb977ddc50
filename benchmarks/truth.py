"""Does the ray caster show what Blender shows? Flat-lit pictures of real objects, from the same cameras.

    python benchmarks/truth.py SOURCE [SOURCE ...] --count 20

Takes objects spread evenly over each source, three views of each, and prints PSNR inside the common silhouette and the
silhouettes' overlap. What Blender shows comes from its own importers.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from mv3d.cameras import static_orbit
from mv3d.errors import Mv3dError
from mv3d.pixels import composite, to_uint8
from render.errors import Unusable
from render.scene import cycles, raycast
from render.scene.scene import make_scene
from render.sources import SourceObject, find_objects

_SAMPLES_PER_SIDE = 5


def compare(item: SourceObject, size_px: int, sheet: Path | None) -> tuple[float, float]:
    """PSNR in dB inside both silhouettes, and their intersection over union."""
    scene = make_scene(item.load(), linear_colours=item.linear_colours)
    radius = scene.radius / float(np.sin(np.radians(33.8 / 2)))
    cameras = static_orbit(3, 15, radius, size_px=size_px)
    ours = raycast.render_orbit(scene, cameras, None, _SAMPLES_PER_SIDE)
    theirs = cycles.render_orbit(item, scene, cameras, None, samples=_SAMPLES_PER_SIDE**2)
    covered = ours[..., 3] >= 0.5, theirs[..., 3] >= 0.5
    inside = (ours[..., 3] > 0.99) & (theirs[..., 3] > 0.99)
    squared = np.square(ours[inside][:, :3] - theirs[inside][:, :3])
    if sheet is not None:
        rows = [np.concatenate(list(composite(frames)), axis=1) for frames in (ours, theirs)]
        name = f"{item.object_id.replace('/', '_')}.png"
        Image.fromarray(to_uint8(np.concatenate(rows))).save(sheet / name)
    return -10 * np.log10(max(squared.mean(), 1e-10)), (covered[0] & covered[1]).sum() / (covered[0] | covered[1]).sum()


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, nargs="+")
    parser.add_argument("--count", type=int, default=20, help="objects of each source")
    parser.add_argument("--size", type=int, default=256, help="pixels")
    parser.add_argument("--only", help="objects with this in their name")
    parser.add_argument("--sheets", type=Path, help="folder for pictures: ours above Blender's")
    options = parser.parse_args()
    if options.sheets is not None:
        options.sheets.mkdir(parents=True, exist_ok=True)
    met = total = 0
    for source in options.source:
        objects = [item for item in find_objects(source) if options.only is None or options.only in item.object_id]
        for k in np.linspace(0, len(objects) - 1, min(options.count, len(objects))).round().astype(int):
            try:
                psnr, overlap = compare(objects[k], options.size, options.sheets)
            except (Unusable, Mv3dError) as error:
                print(f"{objects[k].object_id:55s} {str(error).splitlines()[0]}", flush=True)
                continue
            total += 1
            met += psnr >= 30 and overlap >= 0.99
            print(f"{objects[k].object_id:55s} {psnr:6.2f} dB   IoU {overlap:.4f}", flush=True)
    print(f"{met} of {total} objects with PSNR >= 30 dB and IoU >= 0.99")


if __name__ == "__main__":
    main()
