"""The orbits that a run learns from: which they are, their pictures and cameras, and in which order they come."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from finetune.config import RunConfig
from finetune.pictures import to_tensor
from finetune.processes import Processes
from mv3d.cameras import Camera, turned_to_front
from mv3d.dataset import ListedOrbit, collection_of, list_orbits, read_manifest
from mv3d.errors import Mv3dError
from mv3d.files import read_json, whole_file
from mv3d.orbit import load_orbit
from mv3d.pack import Pack, open_pack, pack_orbits
from mv3d.pixels import to_uint8

_LISTED_AT_MOST = 10  # orbits that are left out, one a line
_NOTED = "trained_on.json"


@dataclass(frozen=True)
class OrbitFrames:
    """One orbit's pictures (F, 4, S, S) in [0, 1], straight alpha, and cameras, in order."""

    rgba: Tensor
    cameras: tuple[Camera, ...]


def load_frames(entry: ListedOrbit, size_px: int) -> OrbitFrames:
    """Read an orbit folder at one size."""
    orbit = load_orbit(Path(entry.orbit))
    orbit = orbit if orbit.frames.shape[1:3] == (size_px, size_px) else orbit.resized(size_px)
    return OrbitFrames(to_tensor(to_uint8(orbit.frames)), orbit.cameras)


def begun_at(frames: OrbitFrames, start: int, num_views: int) -> OrbitFrames:
    """Thin an orbit evenly, beginning at one of its views, and turn it so that this one stands at azimuth 0.

    Raises:
        Mv3dError: if it does not divide by ``num_views``.
    """
    total = len(frames.cameras)
    if total % num_views:
        raise Mv3dError(f"an orbit of {total} views cannot be thinned to {num_views}; render or ask for another number")
    chosen = [(start + k * (total // num_views)) % total for k in range(num_views)]
    return OrbitFrames(frames.rgba[chosen], turned_to_front([frames.cameras[k] for k in chosen]))


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


@dataclass(frozen=True)
class RunOrbits:
    """The orbits of a diffusion stage, packed or in their folders."""

    entries: Sequence[ListedOrbit]
    training: Sequence[int]
    """Which of the entries."""
    validation: Sequence[int]
    left_out: Mapping[str, str]
    """Why others, by their folder, are not here."""
    num_views: int
    """Of a clip."""
    load: Callable[[int], OrbitFrames]
    """Pictures and cameras of an entry."""

    @classmethod
    def of_pack(cls, pack: Pack, num_objects: int) -> RunOrbits:
        """Whole orbits of a pack, of which so many objects at most validate."""

        def load(k: int) -> OrbitFrames:
            return OrbitFrames(to_tensor(pack.frames[k]), pack.cameras(k))

        validation = validation_orbits(pack, num_objects)
        return cls(pack.entries, pack.indices("train"), validation, pack.left_out, pack.frames.shape[1], load)

    @classmethod
    def of_folders(cls, config: RunConfig, size_px: int) -> RunOrbits:
        """Orbit folders at one size, for clips of the config's number of views.

        Raises:
            Mv3dError: if none of them is to train on.
        """
        assert config.num_views is not None
        listing = list_orbits(config.data, config.category)
        training = [entry for entry in listing.orbits if entry.split == "train"]
        if not training:
            raise _none_to_train_on(config.data)
        validation, unusable = _choose_validation(listing.orbits, config, size_px)
        entries, count = [*training, *validation], len(training)
        return cls(
            entries=entries,
            training=range(count),
            validation=range(count, len(entries)),
            left_out=listing.left_out | unusable,
            num_views=config.num_views,
            load=lambda k: load_frames(entries[k], size_px),
        )

    def held_out(self) -> Iterator[OrbitFrames]:
        """Orbits to validate with, from their first view."""
        for k in self.validation:
            yield begun_at(self.load(k), 0, self.num_views)

    def used(self, unusable: Mapping[str, str] | None = None) -> UsedOrbits:
        """What is used of them; ``unusable`` says why some, by their folder, turned out not to be."""
        left_out = {**self.left_out, **(unusable or {})}
        training = [self.entries[k] for k in self.training if self.entries[k].orbit not in left_out]
        return UsedOrbits(training, len(self.validation), left_out)


def _choose_validation(
    entries: Sequence[ListedOrbit], config: RunConfig, size_px: int
) -> tuple[list[ListedOrbit], dict[str, str]]:
    """One orbit of each of the first held-out objects, and why those before it, by their folder, cannot be used."""
    assert config.num_views is not None
    chosen: dict[str, ListedOrbit] = {}
    left_out = {}
    for entry in sorted(entries, key=lambda entry: entry.object_id):
        if entry.split != config.validation_split or entry.object_id in chosen:
            continue
        if len(chosen) == config.validation_objects:
            break
        try:
            begun_at(load_frames(entry, size_px), 0, config.num_views)
            chosen[entry.object_id] = entry
        except Mv3dError as error:
            left_out[entry.orbit] = str(error)
    return list(chosen.values()), left_out


# -------------------------------------------------------------------------------------------------
# Packs.


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
        raise _none_to_train_on(collections)
    return pack


def _none_to_train_on(collections: Sequence[Path]) -> Mv3dError:
    return Mv3dError(f"no orbit of {', '.join(map(str, collections))} is in the split train")


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


# -------------------------------------------------------------------------------------------------
# Whose they are.


def note_objects(run: Path, places: Sequence[Path], used: UsedOrbits) -> None:
    """Remember in a run folder whose objects it is trained on; after a stop it may be given others.

    Raises:
        Mv3dError: if what is remembered already cannot be read.
    """
    folders = map(collection_of, places)
    manifest = {object_id: entry for folder in folders for object_id, entry in read_manifest(folder).items()}
    names = {entry.object_id for entry in used.training} & manifest.keys()
    noted = {name: f"{manifest[name].attribution}; {manifest[name].licence}" for name in names}
    known = noted_objects(run) | noted
    with whole_file(run / _NOTED) as partial:
        partial.write_text(json.dumps(dict(sorted(known.items())), indent=0) + "\n")


def attribution(run: Path) -> str:
    """A line for every object that a run was ever trained on: its author and licence."""
    return "\n".join(noted_objects(run).values()) + "\n"


def noted_objects(run: Path) -> dict[str, str]:
    """Author and licence of every object that a run was ever trained on, by its id; raises as `note_objects`."""
    path = run / _NOTED
    try:
        return dict(read_json(path)) if path.exists() else {}
    except (OSError, ValueError, TypeError) as error:
        message = f"{path} cannot be read ({error}); restore it: it names the objects that the model was trained on"
        raise Mv3dError(message) from error
