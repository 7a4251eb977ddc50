"""Mesh files through trimesh, with a note of what they name and lack: trimesh goes on without pictures, in grey."""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from render.errors import Unusable

if TYPE_CHECKING:
    import trimesh
    from trimesh.resolvers import Resolver

LACKING = "lacking_files"
"""Where a loaded scene's metadata tell of them."""
GREY = "grey"
"""Where they tell that it is to be grey if it has no colour."""


def load_scene(file: Path | BytesIO, resolver: Resolver, *, file_type: str | None = None) -> trimesh.Scene:
    """Load a mesh file; ``resolver`` fetches the materials and pictures that it names.

    Raises:
        Unusable: if there is no mesh in it.
    """
    import trimesh

    lacking: list[str] = []
    noting = _noting(resolver, lacking)
    kind = file_type or Path(str(file)).suffix[1:].lower()
    source = _parse_collada(file, noting) if kind == "dae" else file
    scene = trimesh.load_scene(source, file_type=file_type, resolver=noting, process=False)
    if not scene.geometry:  # and nothing to turn, over which trimesh stumbles
        raise Unusable("no triangles")
    scene.metadata[LACKING] = sorted(set(lacking))
    return scene


def lacking_files(scene: trimesh.Scene) -> list[str]:
    """Files that a loaded object names and that could not be had."""
    return scene.metadata.get(LACKING, [])


def _parse_collada(file: Path | BytesIO, resolver: Resolver) -> dict[str, Any]:
    """What trimesh makes scenes of, less the vertex colours of textured meshes: it would show these colours alone."""
    from trimesh.exchange.dae import load_collada

    data = BytesIO(file.read_bytes()) if isinstance(file, Path) else file
    parsed: dict[str, Any] = load_collada(data, resolver=resolver)
    for mesh in parsed["geometry"].values():
        mesh["process"] = False
        if getattr(getattr(mesh["visual"], "material", None), "baseColorTexture", None) is not None:
            mesh["vertex_colors"] = None
    return parsed


def _noting(resolver: Resolver, lacking: list[str]) -> Resolver:
    from trimesh.resolvers import Resolver

    class Noting(Resolver):
        def __init__(self) -> None:
            self.file_name = getattr(resolver, "file_name", None)

        def get(self, name: str) -> bytes:
            try:
                return resolver.get(name)
            except Exception:
                lacking.append(name)
                raise

        def keys(self) -> Iterable[str]:
            return resolver.keys()

        def write(self, name: str, data: Any) -> None:
            raise NotImplementedError("sources are only read")

        def namespaced(self, namespace: str) -> Resolver:
            return _noting(resolver.namespaced(namespace), lacking)

    return Noting()
