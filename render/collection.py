"""Many orbits at once: a folder of orbit folders, or the same files in tar shards as WebDataset reads them.

A shard holds samples, an orbit each: ``<object>/<k>.transforms.json``, ``<object>/<k>.000.png`` … with the bytes of the
orbit folder; other files of it (passes) keep their folder's name: ``<object>/<k>.depth-000.png``.
"""

from __future__ import annotations

import io
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mv3d.dataset import has_manifest, orbit_folders, read_manifest
from mv3d.errors import Mv3dError
from mv3d.files import whole_file
from mv3d.orbit import Orbit, load_orbit

_JSON = "transforms.json"


def iter_orbits(place: Path) -> Iterator[tuple[str, Orbit]]:
    """All orbits of a rendered folder, or of a tar shard or a folder of shards, with their names ``<object>/<k>``.

    Raises:
        Mv3dError: if the place is neither, or an orbit in it is damaged.
    """
    if has_manifest(place):
        for folder in _folders(place):
            yield folder.relative_to(place).as_posix(), load_orbit(folder)
        return
    shards = [place] if place.is_file() else sorted(place.glob("*.tar"))
    if not shards:
        raise Mv3dError(f"{place} holds neither a manifest.jsonl nor .tar shards; render something there first")
    for shard in shards:
        for name, files in _samples(shard):
            with tempfile.TemporaryDirectory(prefix="mv3d-orbit-") as folder:
                for inside, data in files.items():
                    path = Path(folder) / inside
                    path.parent.mkdir(exist_ok=True)
                    path.write_bytes(data)
                yield name, load_orbit(Path(folder))


def pack(place: Path, out: Path, *, per_shard: int = 500) -> list[Path]:
    """Write the orbits of a rendered folder into ``out/<split>-000000.tar`` …; equal orbits give equal bytes.

    Raises:
        Mv3dError: if there is nothing to pack or ``out`` holds shards already.
    """
    if out.exists() and any(out.glob("*.tar")):
        raise Mv3dError(f"{out} holds shards already; choose another folder", argument="out")
    splits = {object_id: entry.split or "train" for object_id, entry in read_manifest(place).items()}
    shards = []
    for split in ("train", "val", "test"):
        folders = [f for f in _folders(place) if splits[f.parent.relative_to(place).as_posix()] == split]
        for start in range(0, len(folders), per_shard):
            path = out / f"{split}-{start // per_shard:06d}.tar"
            with whole_file(path) as partial, tarfile.open(partial, "w", format=tarfile.PAX_FORMAT) as archive:
                for folder in folders[start : start + per_shard]:
                    _add(archive, folder, folder.relative_to(place).as_posix())
            shards.append(path)
    return shards


def _folders(place: Path) -> list[Path]:
    return [folder for object_id in read_manifest(place) for folder in orbit_folders(place / object_id)]


def _add(archive: tarfile.TarFile, folder: Path, name: str) -> None:
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        inside = path.relative_to(folder).as_posix()
        data = path.read_bytes()
        member = tarfile.TarInfo(f"{name}.{inside.removeprefix('frames/').replace('/', '-')}")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))


def _samples(shard: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """The samples of a shard; a sample's files stand together."""
    files: dict[str, bytes] = {}
    current = None
    try:
        with tarfile.open(shard) as archive:
            for member in archive:
                name, _, inside = member.name.partition(".")
                if name != current and current is not None:
                    yield current, files
                    files = {}
                current = name
                data = archive.extractfile(member)
                if data is not None and ".." not in inside and "/" not in inside:
                    files[_unpacked(inside)] = data.read()
    except tarfile.TarError as error:
        raise Mv3dError(f"{shard} is no tar shard, or a damaged one: {' '.join(str(error).split())}") from None
    if current is not None:
        yield current, files


def _unpacked(name: str) -> str:
    if name == _JSON:
        return name
    folder, dash, rest = name.partition("-")
    return f"{folder}/{rest}" if dash else f"frames/{name}"
