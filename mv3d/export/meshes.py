"""Mesh files out and in; the one place where the world's Z up becomes a format's Y up."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mv3d.errors import Mv3dError
from mv3d.files import check_free, whole_file
from mv3d.mesh import Mesh, Texture

# glTF: +Y up, front +Z. The world: +Z up, front -Y. (x, y, z) becomes (x, z, -y); Blender's importers turn it back.
_Y_UP_FROM_WORLD = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])

# Endings of the files that a format puts beside its own. Not .png alone: <stem>.png may well be the photo that all of
# this was made of. Each format has its own, so that none changes what another one shows.
_MATERIAL, _TEXTURE, _NORMALS = ".mtl", "_texture.png", "_normals.png"
_USD = (".usd", ".usda", ".usdc", ".usdz")
_BESIDE = {".obj": (_MATERIAL, _TEXTURE, _NORMALS)} | {
    suffix: tuple(f"_{suffix[1:]}{ending}" for ending in (_TEXTURE, _NORMALS)) for suffix in _USD[:-1]
}


def save_mesh(mesh: Mesh, path: Path) -> None:
    """Write a mesh in the format its suffix names.

    ``.glb``, ``.obj`` and USD are Y up and textured; ``.ply`` (with vertex colours) and ``.stl`` (without) keep Z up:
    each stands upright, its front to the front, in Blender and other viewers that follow the format's custom. The files
    beside an ``.obj`` are called ``<stem>.mtl``, ``<stem>_texture.png`` and, of a mesh that has a normal map,
    ``<stem>_normals.png``; those beside a ``.usda`` ``<stem>_usda_texture.png`` and so on.

    Raises:
        Mv3dError: if the suffix is another one, the folder cannot be made, or USD's library is not installed.
    """
    check_format(path)
    _WRITERS[path.suffix.lower()](mesh, path)


def check_all_free(path: Path, *, overwrite: bool) -> None:
    """Raise `Mv3dError` if ``path``, or a file that its format puts beside it, exists and must not be replaced."""
    check_free(path, overwrite=overwrite)
    for ending in _BESIDE.get(path.suffix.lower(), ()):
        check_free(path.with_name(path.stem + ending), overwrite=overwrite)


def check_format(path: Path) -> None:
    """Raise `Mv3dError` if the suffix names no mesh format that is written here."""
    if path.suffix.lower() not in _WRITERS:
        raise Mv3dError(f"{path.name} names no known mesh format; choose one of {', '.join(_WRITERS)}")


def _check_readable(path: Path) -> None:
    if path.suffix.lower() not in MESH_SUFFIXES:
        raise Mv3dError(f"{path.name} names no mesh format that is read; give one of {', '.join(MESH_SUFFIXES)}")
    if not path.is_file():
        raise Mv3dError(f"{path} is missing")


def load_mesh(path: Path, *, y_up: bool | None = None) -> Mesh:
    """Read a mesh file into the world's frame; vertices at the same place become one, so closed surfaces are closed.

    The texture is read from .glb and .obj; other kinds of colour are not. ``y_up`` says which axis of the file is up,
    by its format's custom if None.

    Raises:
        Mv3dError: if the file is missing, of another format, damaged or without faces.
    """
    import trimesh

    _check_readable(path)
    try:
        loaded = trimesh.load_scene(path, process=False).to_mesh()
    except Exception as error:  # trimesh's readers raise whatever a damaged file makes them stumble over
        raise Mv3dError(f"{path} is no readable mesh: {error}") from error
    if len(loaded.faces) == 0:
        raise Mv3dError(f"{path} holds no faces")
    vertices = np.asarray(loaded.vertices, dtype=np.float64)
    if path.suffix.lower() in _Y_UP if y_up is None else y_up:
        vertices = vertices @ _Y_UP_FROM_WORLD
    return Mesh(vertices, np.asarray(loaded.faces, dtype=np.int64), _loaded_texture(loaded)).welded()


def _save_glb(mesh: Mesh, path: Path) -> None:
    with whole_file(path) as partial:
        partial.write_bytes(_encoded(_textured(mesh, path.stem), "glb", include_normals=True))


def _save_obj(mesh: Mesh, path: Path) -> None:
    from trimesh.exchange.obj import export_obj
    from trimesh.visual.material import SimpleMaterial

    out = _textured(mesh, "")
    if mesh.texture is not None:
        out.visual.material = SimpleMaterial(
            name=Path(path.stem + _TEXTURE).stem,  # trimesh calls the picture by it
            image=Image.fromarray(mesh.texture.pixels),
            diffuse=(255, 255, 255),  # the picture's colours are multiplied by it
            ambient=(255, 255, 255),
            specular=(0, 0, 0),
        )
    text, beside = export_obj(
        out, return_texture=True, include_normals=True, mtl_name=path.stem + _MATERIAL, digits=9, header=""
    )
    if mesh.texture is not None and mesh.texture.normals is not None:
        name = path.stem + _NORMALS
        beside[name] = _png(mesh.texture.normals)
        beside[path.stem + _MATERIAL] += f"\nnorm {name}\n".encode()
    with ExitStack() as files:
        files.enter_context(whole_file(path)).write_text(text)
        for name, content in beside.items():
            files.enter_context(whole_file(path.with_name(name))).write_bytes(content)


def _save_ply(mesh: Mesh, path: Path) -> None:
    import trimesh

    colours = None if mesh.texture is None else mesh.vertex_colours()
    normals = mesh.vertex_normals()
    out = trimesh.Trimesh(mesh.vertices, mesh.faces, vertex_colors=colours, vertex_normals=normals, process=False)
    with whole_file(path) as partial:
        partial.write_bytes(_encoded(out, "ply", vertex_normal=True))


def _save_stl(mesh: Mesh, path: Path) -> None:
    import trimesh

    with whole_file(path) as partial:
        partial.write_bytes(_encoded(trimesh.Trimesh(mesh.vertices, mesh.faces, process=False), "stl"))


def _save_usd(mesh: Mesh, path: Path) -> None:
    from mv3d.export.usd import save_usd

    texture, normals = (f"{path.stem}_{path.suffix.lower()[1:]}{ending}" for ending in (_TEXTURE, _NORMALS))
    save_usd(mesh, _Y_UP_FROM_WORLD, path, texture, normals)


_WRITERS: dict[str, Callable[[Mesh, Path], None]] = {
    ".glb": _save_glb,
    ".obj": _save_obj,
    ".ply": _save_ply,
    ".stl": _save_stl,
    ".usd": _save_usd,
    ".usda": _save_usd,
    ".usdc": _save_usd,
    ".usdz": _save_usd,
}
MESH_SUFFIXES = (".glb", ".obj", ".ply", ".stl")
"""What `load_mesh` reads."""
_Y_UP = (".glb", ".obj")


def _png(pixels: NDArray[np.uint8]) -> bytes:
    content = BytesIO()
    Image.fromarray(pixels).save(content, format="PNG")
    return content.getvalue()


def _encoded(mesh: Any, file_type: str, **options: Any) -> bytes:
    content = mesh.export(file_type=file_type, **options)
    assert isinstance(content, bytes)
    return content


def _textured(mesh: Mesh, name: str) -> Any:
    """Trimesh's twin of the mesh, Y up: one vertex for each place, normal and texture position that go together."""
    import trimesh
    import trimesh.visual

    per_corner = [mesh.faces.reshape(-1, 1), mesh.corner_normals().reshape(-1, 3).round(4)]
    if mesh.texture is not None:
        per_corner.append(mesh.texture.corner_uv.reshape(-1, 2))
    kinds, faces = np.unique(np.concatenate(per_corner, axis=1), axis=0, return_inverse=True)
    vertices = (mesh.vertices @ _Y_UP_FROM_WORLD.T)[kinds[:, 0].astype(int)]
    normals = kinds[:, 1:4] @ _Y_UP_FROM_WORLD.T
    out = trimesh.Trimesh(vertices, faces.reshape(-1, 3), vertex_normals=normals, process=False)
    if mesh.texture is not None:
        # A dielectric without gloss: every viewer shows the texture's own colours, none waits for an environment map.
        # A picture's own gloss is painted in its colours, and would be there twice.
        normals = mesh.texture.normals
        material = trimesh.visual.material.PBRMaterial(
            name=name,
            baseColorTexture=Image.fromarray(mesh.texture.pixels),
            normalTexture=None if normals is None else Image.fromarray(normals),
            metallicFactor=0.0,
            roughnessFactor=1.0,
        )
        out.visual = trimesh.visual.TextureVisuals(uv=kinds[:, 4:], material=material)
    return out


def _loaded_texture(loaded: Any) -> Texture | None:
    uv = getattr(loaded.visual, "uv", None)
    material = getattr(loaded.visual, "material", None)
    picture = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
    if uv is None or picture is None:
        return None
    pixels: NDArray[np.uint8] = np.asarray(picture.convert("RGB"))
    normals = getattr(material, "normalTexture", None)
    return Texture(
        pixels,
        np.asarray(uv, dtype=np.float64)[loaded.faces],
        None if normals is None else np.asarray(normals.convert("RGB")),
    )
