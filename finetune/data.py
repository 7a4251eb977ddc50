"""Rendered orbits, packed once into memory-mapped arrays that every stage reads at random.

A pack is a folder: ``frames.npy`` (orbits, views, S, S, 4) uint8 straight RGBA, ``depth.npy`` (orbits, views, S, S)
float16 in world units (0 where nothing is, all 0 for an orbit without depth maps), ``cameras.npy`` (orbits, views, 3)
float64 of azimuth_deg, elevation_deg, radius, ``occupancy.npy`` (orbits, D^3 / 8) uint8 of packed bits (all 0 for an
orbit without a grid), and ``index.json``. All orbits have equally many views and one field of view.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mv3d.cameras import Camera
from mv3d.depth import load_depth
from mv3d.errors import Mv3dError
from mv3d.files import whole_folder
from mv3d.occupancy import OCCUPANCY_SIZE, load_occupancy
from mv3d.orbit import load_orbit, to_uint8


@dataclass(frozen=True)
class PackedOrbit:
    """One line of a pack's index."""

    object_id: str
    orbit: str
    """The orbit folder, with the rendered folder it lies in."""
    split: str


@dataclass(frozen=True, eq=False)
class Pack:
    """All orbits of some rendered folders at one resolution."""

    entries: tuple[PackedOrbit, ...]
    frames: np.ndarray
    depth: np.ndarray
    cameras: np.ndarray
    occupancy: np.ndarray

    def indices(self, split: str) -> list[int]:
        """Which orbits belong to a split."""
        return [k for k, entry in enumerate(self.entries) if entry.split == split]

    def cameras_from(self, orbit: int, input_view: int) -> tuple[Camera, ...]:
        """The orbit's cameras, beginning at the input view and turned so that it stands at azimuth 0."""
        views, size = self.frames.shape[1], self.frames.shape[2]
        rows = np.roll(self.cameras[orbit], -input_view, axis=0)
        assert len(rows) == views
        turn = rows[0, 0]
        return tuple(Camera.looking_at_origin(a - turn, e, r, size_px=size) for a, e, r in rows)

    def filled(self, orbit: int) -> np.ndarray:
        """Which cells (D, D, D) of the cube around the origin the object fills, see `mv3d.occupancy`."""
        return np.unpackbits(self.occupancy[orbit]).reshape((OCCUPANCY_SIZE,) * 3)

    def frames_from(self, orbit: int, input_view: int) -> np.ndarray:
        """The orbit's frames (views, S, S, 4) uint8 in the order of `cameras_from`."""
        return np.roll(self.frames[orbit], -input_view, axis=0)


def validation_orbits(pack: Pack, num_objects: int) -> list[int]:
    """One orbit of each of the first validation objects."""
    first = {pack.entries[k].object_id: k for k in reversed(pack.indices("val"))}
    return sorted(first.values())[:num_objects]


def read_manifest(folder: Path) -> dict[str, dict]:
    """The last line of every object in a rendered folder's manifest, or in those of its shards, by object id."""
    paths = sorted(folder.glob("manifest*.jsonl"))
    if not paths:
        raise Mv3dError(
            f"{folder} has no manifest.jsonl; make orbits with: python -m render orbits SOURCE --out {folder}"
        )
    lines = [json.loads(line) for path in paths for line in path.read_text().splitlines() if line.strip()]
    return {line["object_id"]: line for line in lines}


def list_orbits(folders: Sequence[Path], category: str | None = None) -> list[PackedOrbit]:
    """All orbits of some rendered folders, or those of one category.

    Raises:
        Mv3dError: if there is none.
    """
    entries, categories = [], set()
    for folder in folders:
        for object_id, line in read_manifest(folder).items():
            categories.add(line.get("category"))
            if line["orbits"] and category in (None, line.get("category")):
                found = sorted((folder / object_id).glob("*/transforms.json"))
                entries += [PackedOrbit(object_id, str(p.parent), line["split"]) for p in found]
    if not entries:
        known = f" of category {category}; there are {', '.join(sorted(map(str, categories)))}" if category else ""
        raise Mv3dError(f"{', '.join(map(str, folders))}: no rendered orbit in there{known}")
    return entries


def pack_orbits(folders: Sequence[Path], pack: Path, size_px: int) -> Pack:
    """Pack the orbits of rendered folders, or open the pack if it is there and complete."""
    if not (pack / "index.json").is_file():
        _write_pack(folders, pack, size_px)
    index = json.loads((pack / "index.json").read_text())
    return Pack(
        tuple(PackedOrbit(**entry) for entry in index),
        np.load(pack / "frames.npy", mmap_mode="r"),
        np.load(pack / "depth.npy", mmap_mode="r"),
        np.load(pack / "cameras.npy"),
        np.load(pack / "occupancy.npy", mmap_mode="r"),
    )


def _write_pack(folders: Sequence[Path], pack: Path, size_px: int) -> None:
    entries = list_orbits(folders)
    num_views = len(load_orbit(Path(entries[0].orbit)))
    with whole_folder(pack, overwrite=True) as partial:
        shape = (len(entries), num_views, size_px, size_px)
        frames = np.lib.format.open_memmap(partial / "frames.npy", mode="w+", dtype=np.uint8, shape=(*shape, 4))
        depth = np.lib.format.open_memmap(partial / "depth.npy", mode="w+", dtype=np.float16, shape=shape)
        cameras = np.empty((len(entries), num_views, 3))
        occupancy = np.zeros((len(entries), OCCUPANCY_SIZE**3 // 8), dtype=np.uint8)
        for k, entry in enumerate(tqdm(entries, desc="packing orbits", unit="orbit")):
            orbit = load_orbit(Path(entry.orbit))
            if len(orbit) != num_views:
                raise Mv3dError(f"{entry.orbit} has {len(orbit)} views, the first orbit has {num_views}")
            rendered_px = orbit.frames.shape[1]
            if rendered_px < size_px:
                raise Mv3dError(f"{entry.orbit} is of {rendered_px} px: render it with --size {size_px}")
            maps = load_depth(Path(entry.orbit))
            if maps is not None:
                depth[k] = _nearest(maps, size_px)
            filled = load_occupancy(Path(entry.orbit))
            if filled is not None:
                occupancy[k] = np.packbits(filled)
            frames[k] = to_uint8((orbit if rendered_px == size_px else orbit.resized(size_px)).frames)
            cameras[k] = [(c.azimuth_deg, c.elevation_deg, c.radius) for c in orbit.cameras]
        frames.flush()
        depth.flush()
        np.save(partial / "cameras.npy", cameras)
        np.save(partial / "occupancy.npy", occupancy)
        (partial / "index.json").write_text(json.dumps([asdict(entry) for entry in entries], indent=0))


def _nearest(maps: np.ndarray, size_px: int) -> np.ndarray:
    """Resample depth (N, H, W) to squares; a mean of near and far would be a surface that is nowhere."""
    rows, columns = (((np.arange(size_px) + 0.5) * side / size_px).astype(int) for side in maps.shape[1:])
    return maps[:, rows[:, None], columns]


def draw(count: int, population: int, seed: int, step: int) -> np.ndarray:
    """Choose which of ``population`` samples step number ``step`` sees: each epoch passes all once, in seeded order.

    A pure function of its arguments, so a resumed run sees what an uninterrupted one would have seen.
    """
    at = range(step * count, (step + 1) * count)
    orders = {
        epoch: np.random.default_rng([seed, epoch]).permutation(population) for epoch in {k // population for k in at}
    }
    return np.array([orders[k // population][k % population] for k in at])
