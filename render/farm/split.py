"""Which objects are the same, and which are kept from training: decided by the shape alone, for ever."""

from __future__ import annotations

import hashlib
from typing import Literal

import numpy as np

from render.scene.scene import RenderScene, make_scene
from render.sources import SourceObject
from render.sources.group import Group

Split = Literal["train", "val", "test"]
_TEST_SHARE, _VAL_SHARE = 0.08, 0.05
_DECIMALS = 3


def identify(item: SourceObject, scene: RenderScene) -> str:
    """Fingerprint an object by what its source says it is, or else by all of it."""
    stored = item.load_identity()
    return hash_geometry(scene if stored is None else make_scene(stored, linear_colours=item.linear_colours))


def side_of(item: SourceObject, geometry_hash: str) -> str:
    """The side of an object, as given or by its shape; a scene is kept from training if any of its objects is."""
    if not isinstance(item, Group):
        return item.split or split_of(geometry_hash)
    sides = {part.split or split_of(_hash_of(part)) for part in item.parts}
    return next(side for side in ("test", "val", "train") if side in sides)


def _hash_of(item: SourceObject) -> str:
    return identify(item, make_scene(item.load(), linear_colours=item.linear_colours))


def hash_geometry(scene: RenderScene) -> str:
    """Fingerprint the shape (16 hex digits): blind to names, materials, scale, rotation, mirroring and vertex order.

    Copies of a mesh under two names and colour variants share it. Built from the triangle count and area-weighted
    moments, rounded, so that the noise of other units and formats does not matter.
    """
    corners = scene.corners.astype(np.float64)
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=-1) / 2
    total = areas.sum()
    weights = areas / max(total, 1e-30)
    centres = corners.mean(axis=1)
    centred = (centres - weights @ centres) / max(np.sqrt(total), 1e-30)
    distance = np.linalg.norm(centred, axis=-1)
    spread = np.sqrt(np.maximum(np.linalg.eigvalsh((centred * weights[:, None]).T @ centred), 0))
    moments = [*spread, weights @ distance, np.cbrt(weights @ distance**3)]
    text = f"{len(corners)} " + " ".join(f"{round(value, _DECIMALS) + 0.0:.{_DECIMALS}f}" for value in moments)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def split_of(geometry_hash: str) -> Split:
    """Assign a shape to a side: 8 % test, 5 % val, the rest train."""
    draw = int(hashlib.sha256(geometry_hash.encode()).hexdigest()[:8], 16) / 2**32
    if draw < _TEST_SHARE:
        return "test"
    return "val" if draw < _TEST_SHARE + _VAL_SHARE else "train"
