"""What can be exported: which format a name means, what it needs, and who writes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mv3d.errors import Mv3dError
from mv3d.export.blend import save_blend, turntable_of
from mv3d.export.colmap import save_colmap
from mv3d.export.meshes import check_all_free, load_mesh, save_mesh
from mv3d.export.nerf import save_nerf_synthetic, save_nerfstudio
from mv3d.export.printing import PrintFacts, PrintSettings, prepare_print, save_3mf
from mv3d.export.pytorch3d import save_pytorch3d
from mv3d.mesh import Mesh
from mv3d.orbit import Orbit, load_orbit

MESH_NAME = "mesh.glb"


@dataclass(frozen=True)
class Format:
    """A format of files, known by their ``suffixes``, or of folders, known by the file ``marker`` inside."""

    suffixes: tuple[str, ...]
    write: Callable[[Orbit | None, Mesh | None, Path], None]
    marker: str | None = None
    needs_orbit: bool = False
    needs_mesh: bool = False
    prints: bool = False
    """Whether it can be for a 3D printer, in millimetres."""


@dataclass(frozen=True)
class Exported:
    """What was written: the format (a key of `FORMATS`), and what is known of a print."""

    format: str
    printed: PrintFacts | None = None


def _of_mesh(*suffixes: str, save: Callable[[Mesh, Path], None] = save_mesh, prints: bool = False) -> Format:
    def write(_: Orbit | None, mesh: Mesh | None, path: Path) -> None:
        assert mesh is not None
        save(mesh, path)

    return Format(suffixes, write, needs_mesh=True, prints=prints)


def _of_orbit(write: Callable[[Orbit, Mesh | None, Path], None], *suffixes: str, marker: str | None = None) -> Format:
    def checked(orbit: Orbit | None, mesh: Mesh | None, path: Path) -> None:
        assert orbit is not None
        write(orbit, mesh, path)

    return Format(suffixes, checked, marker, needs_orbit=True)


def _write_blend(orbit: Orbit | None, mesh: Mesh | None, path: Path) -> None:
    assert mesh is not None
    save_blend(mesh, turntable_of(mesh) if orbit is None else orbit.cameras, path)


FORMATS = {
    "glb": _of_mesh(".glb"),
    "obj": _of_mesh(".obj"),
    "ply": _of_mesh(".ply"),
    "stl": _of_mesh(".stl", prints=True),
    "3mf": _of_mesh(".3mf", save=save_3mf, prints=True),
    "usd": _of_mesh(".usd", ".usda", ".usdc"),
    "usdz": _of_mesh(".usdz"),
    "blend": Format((".blend",), _write_blend, needs_mesh=True),
    "nerfstudio": _of_orbit(save_nerfstudio, marker="transforms.json"),
    "instant-ngp": _of_orbit(save_nerf_synthetic, marker="transforms_train.json"),
    "colmap": _of_orbit(save_colmap, marker="sparse/0/cameras.txt"),
    "pytorch3d": _of_orbit(lambda orbit, _, path: save_pytorch3d(orbit, path), ".json", ".npz"),
}
_FOLDERS = tuple(name for name, kind in FORMATS.items() if kind.marker)


def pick_format(target: Path, name: str | None = None) -> str:
    """Name the format of ``target``: the one given, or the one its suffix says.

    Raises:
        Mv3dError: if the suffix says none, or another one than the name does.
    """
    suffix = target.suffix.lower()
    if name is None:
        for known, kind in FORMATS.items():
            if suffix in kind.suffixes:
                return known
        suffixes = ", ".join(suffix for kind in FORMATS.values() for suffix in kind.suffixes)
        folders = ", ".join(_FOLDERS)
        raise Mv3dError(
            f"{target} names no format: end it in {suffixes}, or say which for a folder: {folders}", argument="format"
        )
    suffixes = FORMATS[name].suffixes
    if suffixes and suffix not in suffixes:
        raise Mv3dError(f"{target} is no name for {name}: end it in {' or '.join(suffixes)}", argument="format")
    return name


def export_source(
    source: Path,
    target: Path,
    name: str | None = None,
    *,
    overwrite: bool = False,
    printing: PrintSettings | None = None,
) -> Exported:
    """Write an orbit folder, with its ``mesh.glb`` where there is one, or a mesh file in another format.

    ``printing`` makes a print of the mesh: one body in millimetres, see `mv3d.export.printing`.

    Raises:
        Mv3dError: if the source lacks what the format needs, ``target`` cannot be written, or the mesh cannot be
            printed.
    """
    name = pick_format(target, name)
    kind = FORMATS[name]
    _check_printing(target, name, printing)
    _check_target(source, target, kind, overwrite=overwrite)
    orbit = _load_cameras(source, kind, name)
    mesh, printed = _load_its_mesh(source, kind), None
    if printing is not None and mesh is not None:
        try:
            mesh, printed = prepare_print(mesh, printing)
        except Mv3dError as error:
            raise Mv3dError(f"{source}: {error}") from error
    kind.write(orbit, mesh, target)
    return Exported(name, printed)


def _check_printing(target: Path, name: str, printing: PrintSettings | None) -> None:
    if printing is None and name == "3mf":
        raise Mv3dError(f"{target.name} is in millimetres; say how large the print is", argument="size_mm")
    if printing is not None and not FORMATS[name].prints:
        suffixes = " or ".join(suffix for kind in FORMATS.values() if kind.prints for suffix in kind.suffixes)
        raise Mv3dError(f"{target.name} is not for printing; end it in {suffixes}", argument="size_mm")


def _check_target(source: Path, target: Path, kind: Format, *, overwrite: bool) -> None:
    if target.exists() and source.exists() and target.samefile(source):
        raise Mv3dError(f"{target} is the source itself; choose another name")
    check_all_free(target, overwrite=overwrite)
    if target.exists() and kind.marker and not (target / kind.marker).exists():
        raise Mv3dError(f"{target} holds no {kind.marker}, so it is not overwritten; choose another name")


def _load_cameras(source: Path, kind: Format, name: str) -> Orbit | None:
    if source.is_dir():
        is_used = kind.needs_orbit or name == "blend"
        return load_orbit(source) if is_used else None
    if kind.needs_orbit:
        if not source.exists():
            raise Mv3dError(f"{source} is missing; name an orbit folder")
        raise Mv3dError(f"{source} has no cameras, which {name} is made of; name the orbit folder it was lifted from")
    return None


def _load_its_mesh(source: Path, kind: Format) -> Mesh | None:
    if not source.is_dir():
        return load_mesh(source)
    path = source / MESH_NAME
    if path.exists():
        return load_mesh(path)
    if kind.needs_mesh:
        raise Mv3dError(f"{source} has no {MESH_NAME}; make it first: mv3d lift {source} -o {path}")
    return None
