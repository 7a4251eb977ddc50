"""Which orbits a run trains on and validates with, in which order, and what it says of them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from finetune.processes import Processes
from mv3d.dataset import ListedOrbit
from mv3d.errors import Mv3dError
from mv3d.pack import Pack, open_pack, pack_orbits

_LISTED_AT_MOST = 10  # orbits that are left out, one a line


@dataclass(frozen=True)
class UsedOrbits:
    """Which orbits a run trains on and validates with."""

    training: Sequence[ListedOrbit]
    num_validation: int
    left_out: Mapping[str, str]
    """Why orbits, by their folder, are not used."""

    def report(self) -> None:
        """Say on stderr how many they are, and why others are left out."""
        objects = len({entry.object_id for entry in self.training})
        count = self.num_validation
        scored = f"{count} to validate with" if count else "none to validate with, so nothing is scored"
        first = f"{len(self.training)} orbits of {objects} objects to train on, {scored}, {len(self.left_out)} left out"
        lines = [first, *(f"{orbit} is left out: {reason}" for orbit, reason in self.left_out.items())]
        if len(lines) > 1 + _LISTED_AT_MOST:
            more = len(lines) - 1 - _LISTED_AT_MOST
            lines[1 + _LISTED_AT_MOST :] = [f"{more} more are left out"]
        print("".join(f"finetune: {line}\n" for line in lines), end="", file=sys.stderr)


def used_orbits(pack: Pack, num_objects: int) -> UsedOrbits:
    """Those of a pack, of which so many objects at most validate."""
    training = [pack.entries[k] for k in pack.indices("train")]
    return UsedOrbits(training, len(validation_orbits(pack, num_objects)), pack.left_out)


def packed(collections: Sequence[Path], folder: Path, size_px: int, processes: Processes) -> Pack:
    """Pack the orbits of collections, in one process, and open the pack in all.

    Raises:
        Mv3dError: if they cannot be packed, or none of them is to train on.
    """
    if processes.is_main:
        pack_orbits(collections, folder, size_px)
    processes.wait()
    pack = open_pack(folder)
    if not pack.indices("train"):
        raise Mv3dError(f"no orbit of {', '.join(map(str, collections))} is in the split train")
    return pack


def validation_orbits(pack: Pack, num_objects: int) -> list[int]:
    """One orbit of each of the first validation objects."""
    first = {pack.entries[k].object_id: k for k in reversed(pack.indices("val"))}
    return sorted(first.values())[:num_objects]


def draw(count: int, population: int, seed: int, step: int) -> np.ndarray:
    """Choose which of ``population`` samples step number ``step`` sees: each epoch passes all once, in seeded order.

    A pure function of its arguments, so a resumed run sees what an uninterrupted one would have seen.
    """
    at = range(step * count, (step + 1) * count)
    orders = {
        epoch: np.random.default_rng([seed, epoch]).permutation(population) for epoch in {k // population for k in at}
    }
    return np.array([orders[k // population][k % population] for k in at])
