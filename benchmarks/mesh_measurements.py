"""What a mesh is like as an artist would judge it: charts, texture, parts, handles, and how well it shows its views."""

from __future__ import annotations

from dataclasses import astuple, dataclass

import numpy as np
import trimesh
from scipy import ndimage

from mv3d.lift.raster import rasterize
from mv3d.mesh import Mesh
from mv3d.orbit import Orbit
from mv3d.pixels import composite, resize

_SIZE_PX = 512
HEADER = (
    "| object | faces | parts | handles | closed | charts | used | texture | normal map | PSNR | IoU | CPU s |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)


@dataclass(frozen=True)
class MeshMeasurements:
    """What is measured of one mesh."""

    faces: float
    parts: float
    handles: float
    closed: float
    charts: float
    used: float
    """Share of the texture that shows somewhere."""
    texture_px: float
    normal_map: float
    psnr_db: float
    """Of the given picture on the mesh, seen unlit by its own camera at 512 px: inside the picture's silhouette, with
    white where the mesh is not."""
    iou: float
    """Of the silhouettes there."""
    cpu_seconds: float
    """To make it; not a number where that is not known."""

    def as_row(self, name: str) -> str:
        """A row of the Markdown table that `HEADER` begins."""
        yes_no = ["no", "yes"]
        return (
            f"| {name} | {self.faces:.0f} | {self.parts:.0f} | {self.handles:.0f} | {yes_no[self.closed > 0.5]} | "
            f"{self.charts:.0f} | {self.used:.2f} | {self.texture_px:.0f} | {yes_no[self.normal_map > 0.5]} | "
            f"{self.psnr_db:.1f} | {self.iou:.3f} | {self.cpu_seconds:.1f} |"
        )


def median(measured: list[MeshMeasurements]) -> MeshMeasurements:
    """Of every number by itself."""
    return MeshMeasurements(*np.nanmedian([astuple(facts) for facts in measured], axis=0).tolist())


def measure(mesh: Mesh, orbit: Orbit, cpu_seconds: float) -> MeshMeasurements:
    """Measure one mesh against the orbit that it was made of, whose given view, or first, is looked at."""
    assert mesh.texture is not None
    welded = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    parts = welded.body_count
    uv = mesh.texture.corner_uv
    by_place = np.unique(
        np.concatenate([mesh.faces.reshape(-1, 1), uv.reshape(-1, 2)], axis=1), axis=0, return_inverse=True
    )[1]
    charts = trimesh.Trimesh(np.zeros((by_place.max() + 1, 3)), by_place.reshape(-1, 3), process=False).body_count
    edges, others = uv[:, 1] - uv[:, 0], uv[:, 2] - uv[:, 0]
    used = float(np.abs(edges[:, 0] * others[:, 1] - edges[:, 1] * others[:, 0]).sum() / 2)
    seen, hit = _seen(mesh, orbit)
    given = orbit.facts.input_index or 0
    picture = orbit.frames[given] if orbit.picture is None else orbit.picture
    true = resize(picture, _SIZE_PX, _SIZE_PX)
    inside = true[..., 3] > 0.5
    error = ((seen - composite(true)) ** 2)[inside].mean()
    return MeshMeasurements(
        faces=len(mesh.faces),
        parts=parts,
        handles=round((2 * parts - welded.euler_number) / 2),
        closed=mesh.is_watertight,
        charts=charts,
        used=used,
        texture_px=mesh.texture.pixels.shape[0],
        normal_map=mesh.texture.normals is not None,
        psnr_db=float(-10 * np.log10(error)),
        iou=float((hit & inside).sum() / (hit | inside).sum()),
        cpu_seconds=cpu_seconds,
    )


def _seen(mesh: Mesh, orbit: Orbit) -> tuple[np.ndarray, np.ndarray]:
    """What the picture's camera sees of the mesh, on white (S, S, 3), and where it is (S, S)."""
    assert mesh.texture is not None
    camera = orbit.cameras[orbit.facts.input_index or 0].resized(_SIZE_PX, _SIZE_PX)
    pixels, depth = camera.project(mesh.vertices)
    found = rasterize(pixels[mesh.faces], depth[mesh.faces], _SIZE_PX, _SIZE_PX)
    uv = (mesh.texture.corner_uv[found.faces] * found.barycentric[:, :, None]).sum(axis=1)
    height, width, _ = mesh.texture.pixels.shape
    at = np.stack([(1 - uv[:, 1]) * height, uv[:, 0] * width]) - 0.5
    planes = np.moveaxis(mesh.texture.pixels / 255, -1, 0)
    colours = np.stack([ndimage.map_coordinates(plane, at, order=1, mode="nearest") for plane in planes], axis=-1)
    picture = np.ones((_SIZE_PX, _SIZE_PX, 3))
    picture[found.rows, found.columns] = colours
    hit = np.zeros((_SIZE_PX, _SIZE_PX), dtype=bool)
    hit[found.rows, found.columns] = True
    return picture, hit
