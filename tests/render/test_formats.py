"""What single formats say about looks and axes, and trimesh does not pass on."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from mv3d.srgb import linear_to_srgb
from render.scene.scene import RenderScene, make_scene
from render.scene.textures import TextureStack
from render.sources import find_objects


def load(path: Path) -> RenderScene:
    item = find_objects(path)[0]
    return make_scene(item.load(), linear_colours=item.linear_colours)


_WRAPS = {
    "repeat": (10497, lambda k, count: k % count),
    "clamp": (33071, lambda k, count: np.clip(k, 0, count - 1)),
    "mirror": (33648, lambda k, count: np.minimum(k % (2 * count), 2 * count - 1 - k % (2 * count))),
}


@pytest.mark.parametrize("kind", ["glb", "gltf"])
@pytest.mark.parametrize("along_u", list(_WRAPS))
@pytest.mark.parametrize("along_v", list(_WRAPS))
def test_gltf_pictures_go_on_beyond_their_edges_as_their_samplers_say(
    tmp_path: Path, kind: str, along_u: str, along_v: str
) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (3, 5, 3), np.uint8)
    column, row = (rng.integers(-2 * count, 3 * count, 60) for count in (5, 3))  # row 0 is the lowest
    uv = np.stack([(column + 0.5) / 5, (row + 0.5) / 3], axis=-1)  # the middles of texels
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=Image.fromarray(pixels))
    visual = trimesh.visual.TextureVisuals(uv=uv, material=material)
    mesh = trimesh.Trimesh(rng.random((60, 3)), np.arange(60).reshape(20, 3), visual=visual, process=False)
    header, files = _exported(mesh)
    header["samplers"] = [{"wrapS": _WRAPS[along_u][0], "wrapT": _WRAPS[along_v][0]}]
    header["textures"][0]["sampler"] = 0
    _write_gltf(tmp_path / f"a.{kind}", header, files)
    scene = load(tmp_path / f"a.{kind}")
    seen = TextureStack(scene.textures, scene.clamped)
    zero = np.zeros(60, np.int32)
    colours = seen.lookup(seen.copies(zero, zero), *scene.uv.reshape(-1, 2).T.copy())
    expected = pixels[2 - _WRAPS[along_v][1](row, 3), _WRAPS[along_u][1](column, 5)]
    np.testing.assert_allclose(linear_to_srgb(colours[:, :3]) * 255, expected, atol=0.1)


@pytest.mark.parametrize(
    ("gloss", "colour", "painted"),
    [
        ({"diffuseTexture": {"index": 0}, "specularFactor": [0.2, 0.2, 0.2], "glossinessFactor": 1.0}, (1, 1, 1), True),
        ({"diffuseFactor": [0.2, 0.4, 0.6, 1.0], "specularFactor": [0.0, 0.0, 0.0]}, (0.2, 0.4, 0.6), False),
        ({"diffuseFactor": [0, 0, 0, 1], "specularFactor": [0.8, 0.6, 0.2]}, (0.8, 0.6, 0.2), False),  # gold
    ],
)
def test_gltf_materials_told_by_specular_and_gloss_show_their_diffuse_colour(
    tmp_path: Path, gloss: dict, colour: tuple, painted: bool
) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8))
    box = trimesh.creation.box((1, 1, 1))
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=picture)
    box.visual = trimesh.visual.TextureVisuals(uv=np.zeros((8, 2)), material=material)
    header, files = _exported(box)
    header["materials"][0] |= {"extensions": {"KHR_materials_pbrSpecularGlossiness": gloss}}
    _write_gltf(tmp_path / "a.glb", header, files)
    scene = load(tmp_path / "a.glb")
    np.testing.assert_allclose(scene.colours[0, 0, :3], colour, atol=1 / 255)
    assert (scene.texture >= 0).all() == painted
    if painted:
        np.testing.assert_array_equal(scene.textures[0][..., :3], np.asarray(picture))


COLLADA = """<?xml version="1.0" encoding="utf-8"?>
<COLLADA xmlns="http://www.collada.org/2005/11/COLLADASchema" version="1.4.1">
<asset><!-- not Z_UP --><unit meter="0.01"/><up_axis>{axis}</up_axis></asset>
<library_images><image id="i"><init_from>red.png</init_from></image></library_images>
<library_effects><effect id="e"><profile_COMMON>
<newparam sid="s"><surface type="2D"><init_from>i</init_from></surface></newparam>
<newparam sid="t"><sampler2D><source>s</source></sampler2D></newparam>
<technique sid="c"><lambert><diffuse>{diffuse}</diffuse></lambert></technique></profile_COMMON>
</effect></library_effects>
<library_materials><material id="m"><instance_effect url="#e"/></material></library_materials>
<library_geometries><geometry id="g"><mesh>
<source id="p"><float_array id="pa" count="12">0 0 0 1 0 0 0 2 0 0 0 3</float_array><technique_common>
<accessor source="#pa" count="4" stride="3"><param name="X" type="float"/><param name="Y" type="float"/>
<param name="Z" type="float"/></accessor></technique_common></source>
<source id="u"><float_array id="ua" count="2">0.5 0.5</float_array><technique_common>
<accessor source="#ua" count="1" stride="2"><param name="S" type="float"/><param name="T" type="float"/></accessor>
</technique_common></source>
<source id="k"><float_array id="ka" count="3">0 1 0</float_array><technique_common>
<accessor source="#ka" count="1" stride="3"><param name="R" type="float"/><param name="G" type="float"/>
<param name="B" type="float"/></accessor></technique_common></source>
<vertices id="v"><input semantic="POSITION" source="#p"/></vertices>
<triangles material="m" count="4"><input semantic="VERTEX" source="#v" offset="0"/>
<input semantic="TEXCOORD" source="#u" offset="1" set="0"/><input semantic="COLOR" source="#k" offset="2"/>
<p>0 0 0 2 0 0 1 0 0  0 0 0 1 0 0 3 0 0  0 0 0 3 0 0 2 0 0  1 0 0 2 0 0 3 0 0</p></triangles></mesh></geometry>
</library_geometries>
<library_visual_scenes><visual_scene id="w"><node id="n"><instance_geometry url="#g">
<bind_material><technique_common><instance_material symbol="m" target="#m"/>
</technique_common></bind_material></instance_geometry></node>
</visual_scene></library_visual_scenes><scene><instance_visual_scene url="#w"/></scene></COLLADA>"""


@pytest.mark.parametrize(
    ("axis", "extents"), [("Z_UP", (1, 2, 3)), ("Y_UP", (1, 3, 2)), ("X_UP", (2, 3, 1)), ("down", (1, 3, 2))]
)
def test_collada_files_stand_as_they_say(tmp_path: Path, axis: str, extents: tuple) -> None:
    (tmp_path / "a.dae").write_text(COLLADA.format(axis=axis, diffuse="<color>1 0 0 1</color>"))
    np.testing.assert_allclose(np.ptp(load(tmp_path / "a.dae").corners, axis=(0, 1)) * 3, extents, atol=1e-5)
    _, loaded_from_imported = find_objects(tmp_path / "a.dae")[0].write_files(tmp_path)
    np.testing.assert_allclose(loaded_from_imported, np.diag([100, 100, 100, 1]))  # Blender makes metres of centimetres


def test_collada_pictures_go_before_vertex_colours(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), (255, 0, 0)).save(tmp_path / "red.png")
    (tmp_path / "a.dae").write_text(COLLADA.format(axis="Z_UP", diffuse='<texture texture="t" texcoord="UV"/>'))
    painted = load(tmp_path / "a.dae")
    assert (painted.texture == 0).all()
    assert (painted.textures[0] == (255, 0, 0, 255)).all()
    assert (painted.colours == 1).all()
    (tmp_path / "a.dae").write_text(COLLADA.format(axis="Z_UP", diffuse="<color>1 1 1 1</color>"))
    plain = load(tmp_path / "a.dae")
    assert (plain.texture == -1).all()
    np.testing.assert_allclose(plain.colours, np.broadcast_to((0, 1, 0, 1), plain.colours.shape))


def _exported(mesh: trimesh.Trimesh) -> tuple[dict, dict[str, bytes]]:
    files = mesh.export(file_type="gltf")
    return json.loads(files.pop("model.gltf")), files


def _write_gltf(path: Path, header: dict, files: dict[str, bytes]) -> None:
    if path.suffix == ".gltf":
        for name, data in files.items():
            (path.parent / name).write_bytes(data)
        path.write_text(json.dumps(header))
        return
    parts = [files[buffer["uri"]] for buffer in header["buffers"]]
    for view in header["bufferViews"]:
        view["byteOffset"] = view.get("byteOffset", 0) + sum(len(part) for part in parts[: view["buffer"]])
        view["buffer"] = 0
    data = b"".join(parts)
    header["buffers"] = [{"byteLength": len(data)}]
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 4)
    chunks = [(b"JSON", text), (b"BIN\0", data + b"\0" * (-len(data) % 4))]
    body = b"".join(struct.pack("<I4s", len(chunk), name) + chunk for name, chunk in chunks)
    path.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body)
