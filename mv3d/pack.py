"""Orbits of collections, packed once into memory-mapped arrays that training reads at random.

A pack is a folder: ``frames.bin`` (orbits, views, S, S, 4) uint8 straight RGBA; ``depth.bin`` (orbits, views, S, S)
float16 in world units (0 where nothing is, all 0 for an orbit without depth maps); ``occupancy.bin`` (orbits, D^3 / 8)
uint8, a bit a cell (all 0 for an orbit without a grid, see `mv3d.occupancy`); ``cameras.npz`` with
``world_from_cam`` (orbits, views, 4, 4) and ``lens`` (orbits, views, 5): focal_px, cx_px, cy_px, width_px, height_px;
and ``index.json``: whose orbits these are, which were left out, and by what the arrays are known to be whole.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mv3d.cameras import Camera, turned_to_front
from mv3d.dataset import ListedOrbit, Listing, collection_of, list_orbits
from mv3d.depth import load_depth
from mv3d.errors import Mv3dError
from mv3d.files import read_json, whole_folder
from mv3d.occupancy import OCCUPANCY_SIZE, load_occupancy
from mv3d.orbit import Orbit, load_orbit
from mv3d.pixels import to_uint8

_FORMAT = 3
_ARRAYS = ("frames.bin", "depth.bin", "occupancy.bin", "cameras.npz")
_NOTHING = np.zeros(OCCUPANCY_SIZE**3, dtype=bool)
_LENS = ("focal_px", "cx_px", "cy_px", "width_px", "height_px")


@dataclass(frozen=True, eq=False)
class Pack:
    """All usable orbits of some collections at one resolution; they have equally many views."""

    entries: tuple[ListedOrbit, ...]
    left_out: dict[str, str]
    """Why orbits, by their folder, are not here."""
    frames: np.ndarray
    depth: np.ndarray
    occupancy: np.ndarray
    world_from_cam: np.ndarray
    lens: np.ndarray

    def indices(self, split: str) -> list[int]:
        """Which orbits belong to a split."""
        return [k for k, entry in enumerate(self.entries) if entry.split == split]

    def cameras(self, orbit: int) -> tuple[Camera, ...]:
        """The orbit's cameras as they were rendered, in order."""
        both = zip(self.world_from_cam[orbit], self.lens[orbit].tolist(), strict=True)
        return tuple(
            Camera(pose, focal_px, int(width_px), int(height_px), cx_px, cy_px)
            for pose, (focal_px, cx_px, cy_px, width_px, height_px) in both
        )

    def cameras_from(self, orbit: int, input_view: int) -> tuple[Camera, ...]:
        """The orbit's cameras, beginning at the input view and turned so that it stands at azimuth 0."""
        cameras = self.cameras(orbit)
        return turned_to_front(cameras[input_view:] + cameras[:input_view])

    def filled(self, orbit: int) -> np.ndarray:
        """Which cells (D, D, D) of the cube around the origin the object fills, see `mv3d.occupancy`."""
        return np.unpackbits(self.occupancy[orbit]).reshape((OCCUPANCY_SIZE,) * 3)


def pack_orbits(places: Sequence[Path], pack: Path, size_px: int) -> Pack:
    """Pack the orbits of collections, or open the pack if it is there, whole, and of these orbits as they are now.

    ``places`` are as for `mv3d.dataset.list_orbits`. An orbit that cannot be used is left out, and the pack tells why.

    Raises:
        Mv3dError: if no orbit of a collection can be used, or the pack cannot be written.
    """
    listing = list_orbits(places)
    key = _key(listing, size_px)
    try:
        if _index(pack)["key"] == key:
            return open_pack(pack)
    except Mv3dError:
        pass  # none, or none that can be used: it is made of what can be read again
    _write_pack(listing, places, pack, size_px, key)
    return open_pack(pack)


def open_pack(pack: Path) -> Pack:
    """Open a pack as it is, whatever became of the orbits it was made of.

    Raises:
        Mv3dError: if it is damaged.
    """
    index = _index(pack)
    try:
        for name in _ARRAYS:
            _check_whole(pack / name, index["arrays"][name])
        shape = (len(index["orbits"]), index["num_views"], index["size_px"], index["size_px"])
        with np.load(pack / "cameras.npz") as cameras:
            return Pack(
                tuple(ListedOrbit(**entry) for entry in index["orbits"]),
                index["left_out"],
                np.memmap(pack / "frames.bin", np.uint8, "r", shape=(*shape, 4)),
                np.memmap(pack / "depth.bin", np.float16, "r", shape=shape),
                np.memmap(pack / "occupancy.bin", np.uint8, "r", shape=(shape[0], OCCUPANCY_SIZE**3 // 8)),
                cameras["world_from_cam"],
                cameras["lens"],
            )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(pack, error) from error


def _key(listing: Listing, size_px: int) -> str:
    made_of = json.dumps([_FORMAT, size_px, [asdict(entry) for entry in listing.orbits], listing.left_out])
    return hashlib.sha256(made_of.encode()).hexdigest()


def _index(pack: Path) -> dict[str, Any]:
    try:
        index = read_json(pack / "index.json")
    except (OSError, ValueError) as error:
        raise _damaged(pack, error) from error
    if not isinstance(index, dict) or not isinstance(index.get("key"), str):
        raise _damaged(pack, "of another version of mv3d")
    return index


def _damaged(pack: Path, reason: object) -> Mv3dError:
    return Mv3dError(f"{pack} is no whole pack ({reason}); run the same command again: it is packed anew")


def _check_whole(path: Path, known: dict[str, Any]) -> None:
    """By size and time, and where the time is another one, as in a copy, by checksum."""
    facts = path.stat()
    if facts.st_size != known["bytes"]:
        raise ValueError(f"{path.name} has {facts.st_size} bytes instead of {known['bytes']}")
    if facts.st_mtime_ns != known["modified_ns"]:
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != known["sha256"]:
                raise ValueError(f"{path.name} was changed")


# -------------------------------------------------------------------------------------------------
# Packing.


def _write_pack(listing: Listing, places: Sequence[Path], pack: Path, size_px: int, key: str) -> None:
    used: list[ListedOrbit] = []
    left_out = dict(listing.left_out)
    poses, lenses = [], []
    num_views = _usual_num_views(listing)
    with _full_disk_as_error(pack), whole_folder(pack, overwrite=True) as partial:
        with (
            (partial / "frames.bin").open("wb") as frames,
            (partial / "depth.bin").open("wb") as depth,
            (partial / "occupancy.bin").open("wb") as occupancy,
        ):
            for entry in tqdm(listing.orbits, desc="packing orbits", unit="orbit"):
                try:
                    orbit, maps = _load(Path(entry.orbit), num_views, size_px)
                    filled = load_occupancy(Path(entry.orbit))
                except Mv3dError as error:  # one orbit that cannot be used does not stop the others
                    left_out[entry.orbit] = str(error)
                    continue
                frames.write(to_uint8(orbit.frames).tobytes())
                depth.write(maps.tobytes())
                occupancy.write(np.packbits(_NOTHING if filled is None else filled).tobytes())
                poses.append([camera.world_from_cam for camera in orbit.cameras])
                lenses.append([[getattr(camera, name) for name in _LENS] for camera in orbit.cameras])
                used.append(entry)
        _check_used(listing, places, used, left_out)
        np.savez(partial / "cameras.npz", world_from_cam=np.array(poses), lens=np.array(lenses))
        index = {
            "format": _FORMAT,
            "key": key,
            "num_views": num_views,
            "size_px": size_px,
            "arrays": {name: _known(partial / name) for name in _ARRAYS},
            "left_out": left_out,
            "orbits": [asdict(entry) for entry in used],
        }
        (partial / "index.json").write_text(json.dumps(index, indent=0))


def _known(path: Path) -> dict[str, Any]:
    facts = path.stat()
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": facts.st_size, "modified_ns": facts.st_mtime_ns, "sha256": digest}


def _load(folder: Path, num_views: int, size_px: int) -> tuple[Orbit, np.ndarray]:
    """An orbit at the pack's size, and its depth (views, S, S)."""
    orbit, maps = load_orbit(folder), load_depth(folder)
    shape, wanted = orbit.frames.shape[1:3], (size_px, size_px)
    if len(orbit) != num_views:
        raise Mv3dError(f"{folder} has {len(orbit)} views, most have {num_views}")
    if min(shape) < size_px:
        raise Mv3dError(
            f"{folder} is of {min(shape)} px: render it with: python -m render orbits SOURCE --out DIR --size {size_px}"
        )
    if maps is not None and len(maps) != num_views:
        raise Mv3dError(f"{folder} has depth maps of {len(maps)} of its {num_views} views; delete them and add all")
    depth = np.zeros((num_views, size_px, size_px)) if maps is None else _nearest(maps, size_px)
    return orbit if shape == wanted else orbit.resized(size_px), depth.astype(np.float16)


def _usual_num_views(listing: Listing) -> int:
    """How many views most orbits have, by their transforms.json."""
    counts = Counter(count for entry in listing.orbits if (count := _num_views(Path(entry.orbit))))
    return counts.most_common(1)[0][0] if counts else 0


def _num_views(folder: Path) -> int:
    try:
        return len(read_json(folder / "transforms.json")["frames"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0  # why it cannot be read is said when it is loaded


def _check_used(
    listing: Listing, places: Sequence[Path], used: Sequence[ListedOrbit], left_out: dict[str, str]
) -> None:
    """A collection of which nothing can be used is a mistake, not an accident."""
    kept = {entry.orbit for entry in used}
    for place in places:
        collection = collection_of(place)
        of_it = [entry.orbit for entry in listing.orbits if Path(entry.orbit).is_relative_to(collection)]
        if of_it and not kept.intersection(of_it):
            raise Mv3dError(f"{place}: none of its {len(of_it)} orbits can be used; the first: {left_out[of_it[0]]}")


def _nearest(maps: np.ndarray, size_px: int) -> np.ndarray:
    """Resample depth (N, H, W) to squares; a mean of near and far would be a surface that is nowhere."""
    rows, columns = (((np.arange(size_px) + 0.5) * side / size_px).astype(int) for side in maps.shape[1:])
    return maps[:, rows[:, None], columns]


@contextmanager
def _full_disk_as_error(pack: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Mv3dError(
            f"{pack} cannot be written: {error.strerror}; free space and run the same command again"
        ) from error
