"""GlTF files, with what trimesh leaves out or gets wrong: wrapping of pictures, colours beside specular-glossiness."""

from __future__ import annotations

import json
import struct
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from render.sources.loading import load_scene

if TYPE_CHECKING:
    import trimesh
    from trimesh.resolvers import Resolver

Wrap = Literal["repeat", "mirror", "clamp"]
"""How a picture goes on beyond its edges."""
REPEAT: tuple[Wrap, Wrap] = ("repeat", "repeat")
_WRAPS: dict[int, Wrap] = {10497: "repeat", 33071: "clamp", 33648: "mirror"}  # glTF 2.0, section 5.26
_GLOSS = "KHR_materials_pbrSpecularGlossiness"
_JSON = b"JSON"


def load_gltf(path: Path, resolver: Resolver) -> trimesh.Scene:
    """Load a .gltf or .glb file; materials whose picture is not repeated say so in an attribute ``wrap`` (u, v)."""
    data = path.read_bytes()
    try:
        header, rest = _split(data)
        materials = header.get("materials", [])
        glossy = [_take_diffuse(material) for material in materials]
        wraps = [_wrap(header, material) for material in materials]
        if not any(glossy) and all(wrap == REPEAT for wrap in wraps):
            return load_scene(path, resolver)
        for k, material in enumerate(materials):
            material["name"] = f"material-{k}"  # all that trimesh keeps to know them by
        data = _join(header, rest)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, struct.error):
        return load_scene(path, resolver)  # damaged; trimesh says how
    scene = load_scene(BytesIO(data), resolver, file_type=path.suffix.lower()[1:])
    by_name = {f"material-{k}": wrap for k, wrap in enumerate(wraps)}
    for mesh in scene.geometry.values():
        material = getattr(mesh.visual, "material", None)
        if material is not None and material.name in by_name:
            material.wrap = by_name[material.name]
    return scene


def _take_diffuse(material: dict[str, Any]) -> bool:
    """Turn a material that is told by its diffuse and specular colour into one of its diffuse colour alone.

    Metals have none; their specular colour is what is seen of them. Returns whether it was such a material.
    """
    gloss = material.get("extensions", {}).pop(_GLOSS, None)
    if gloss is None:
        return False
    diffuse, picture = gloss.get("diffuseFactor", [1, 1, 1, 1]), gloss.get("diffuseTexture")
    if picture is None and not any(diffuse[:3]):
        diffuse, picture = [*gloss.get("specularFactor", [1, 1, 1]), diffuse[3]], gloss.get("specularGlossinessTexture")
    material["pbrMetallicRoughness"] = {"baseColorFactor": diffuse, "metallicFactor": 0.0} | (
        {} if picture is None else {"baseColorTexture": picture}
    )
    return True


def _wrap(header: dict[str, Any], material: dict[str, Any]) -> tuple[Wrap, Wrap]:
    picture = material.get("pbrMetallicRoughness", {}).get("baseColorTexture")
    if picture is None or "sampler" not in (texture := header["textures"][picture["index"]]):
        return REPEAT
    sampler = header["samplers"][texture["sampler"]]
    return _WRAPS[sampler.get("wrapS", 10497)], _WRAPS[sampler.get("wrapT", 10497)]


def _split(data: bytes) -> tuple[dict[str, Any], bytes | None]:
    """The header, and the chunks after it if the file is binary."""
    if data[:4] != b"glTF":
        return json.loads(data), None
    length, kind = struct.unpack_from("<I4s", data, 12)
    if kind != _JSON:
        raise ValueError("no header")
    return json.loads(data[20 : 20 + length]), data[20 + length :]


def _join(header: dict[str, Any], rest: bytes | None) -> bytes:
    text = json.dumps(header).encode()
    if rest is None:
        return text
    text += b" " * (-len(text) % 4)
    return struct.pack("<4sIII4s", b"glTF", 2, 20 + len(text) + len(rest), len(text), _JSON) + text + rest
