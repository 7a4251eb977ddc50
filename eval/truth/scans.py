"""Google Scanned Objects as they are downloaded, made ordinary OBJ files.

Each is a folder or a zip with ``meshes/model.obj`` and ``model.mtl``, the texture that it names apart in
``materials/textures``, besides ``metadata.pbtxt``, ``model.config``, ``model.sdf`` and ``thumbnails``. Z is up, as in
all SDF models, where an OBJ file is Y up by custom (Downs et al. 2022).
"""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path, PurePosixPath

from mv3d.errors import Mv3dError
from mv3d.files import whole_folder

_SCAN_MESH, _SCAN_TEXTURES = "meshes/model.obj", "materials/textures"
_PICTURES = (".png", ".jpg")  # some copies have them beside the mesh


def unpack_scans(folder: Path, unpacked: Path) -> Path:
    """Unpack the scans of a folder, those not yet there; returns ``unpacked``, or the folder itself if it has none.

    Raises:
        Mv3dError: if a zip is damaged.
    """
    if not folder.is_dir():
        return folder
    scans = sorted(path.parents[1] for path in folder.rglob(_SCAN_MESH))
    archives = [path for path in sorted(folder.glob("*.zip")) if _is_scan(path)]
    if not scans and not archives:
        return folder
    for scan in scans:
        name = "_".join(scan.relative_to(folder).parts) or folder.resolve().name
        _unpack(name, {p.relative_to(scan).as_posix(): p for p in scan.rglob("*") if p.is_file()}, unpacked)
    for archive in archives:
        with zipfile.ZipFile(archive) as content:
            members = {name: zipfile.Path(content, name) for name in content.namelist() if not name.endswith("/")}
            _unpack(archive.stem, members, unpacked)
    return unpacked


def _is_scan(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return _SCAN_MESH in archive.namelist()
    except (zipfile.BadZipFile, OSError) as error:
        raise Mv3dError(f"{path} is no readable zip ({error}); download it again") from error


def _unpack(name: str, files: dict[str, Path] | dict[str, zipfile.Path], unpacked: Path) -> None:
    """Write one scan as an OBJ file with Y up, its materials and pictures beside it."""
    if (unpacked / name).is_dir():
        return
    with whole_folder(unpacked / name) as partial:
        (partial / f"{name}.obj").write_bytes(_with_y_up(files[_SCAN_MESH].read_bytes()))
        for member, file in files.items():
            inside = PurePosixPath(member)
            beside_mesh = inside.suffix == ".mtl" or (str(inside.parent) == "meshes" and inside.suffix in _PICTURES)
            if beside_mesh or str(inside.parent) == _SCAN_TEXTURES:
                with file.open("rb") as source, (partial / inside.name).open("wb") as target:
                    shutil.copyfileobj(source, target)


def _with_y_up(text: bytes) -> bytes:
    """Turn the places and normals of an OBJ file with Z up: (x, y, z) becomes (x, z, -y)."""
    lines = []
    for line in text.split(b"\n"):
        parts = line.split()
        if len(parts) >= 4 and parts[0] in (b"v", b"vn"):
            key, x, y, z, *rest = parts
            turned_y = y[1:] if y.startswith(b"-") else b"-" + y
            line = b" ".join([key, x, z, turned_y, *rest])
        lines.append(line)
    return b"\n".join(lines)
