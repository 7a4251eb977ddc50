"""Does any damaged or hostile file break a run? Renders mutated files of all kinds and checks what is left behind.

    python benchmarks/fuzz.py --count 200 --seed 0

Every file must end as an orbit, as a line of the manifest with its reason, or refused in one line when the objects are
listed, and nothing may appear outside the output folder. Exit code 1 and a list if not.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import struct
import sys
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import trimesh
from trimesh.visual import ColorVisuals

from mv3d.errors import Mv3dError
from render.farm.farm import render_sources
from render.settings import Settings
from render.sources import SourceObject, find_objects

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.render import game_files  # noqa: E402
from tests.render.conftest import make_cube_mtl, make_cube_obj  # noqa: E402

Files = dict[str, bytes]  # by their paths; what is below the name of an archive goes into it
Mutation = Callable[[Files, np.random.Generator], Files]
_LAUGHS = b'<!DOCTYPE a [<!ENTITY a "ha">' + b"".join(
    b'<!ENTITY %c "%s">' % (98 + k, b"&%c;" % (97 + k) * 10) for k in range(8)
)


def seeds() -> dict[str, Files]:
    """Good files of every kind, in a folder each."""
    box = trimesh.creation.box()
    box.visual = ColorVisuals(box, vertex_colors=np.random.default_rng(0).integers(0, 256, (8, 4)))
    vertices, uv, faces = game_files.grid(8)
    textured = make_cube_obj().replace("f ", "vt 0 0\nf ", 1)
    mtl = make_cube_mtl().encode() + b"newmtl painted\nmap_Kd skin.png\n"
    skin = game_files.picture((200, 0, 0), (0, 0, 200), "PNG")
    gltf = {
        "asset": {"version": "2.0"},
        "scenes": [{"nodes": [0]}],
        "scene": 0,
        "nodes": [{"children": [1]}, {"children": [2]}, {"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "indices": 1, "material": 0}]}],
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": 8, "type": "VEC3"},
            {"bufferView": 1, "componentType": 5125, "count": 36, "type": "SCALAR"},
        ],
        "bufferViews": [
            {"buffer": 0, "byteLength": 96},
            {"buffer": 0, "byteOffset": 96, "byteLength": 144},
        ],
        "buffers": [{"uri": "data.bin", "byteLength": 240}],
        "materials": [{"pbrMetallicRoughness": {"baseColorFactor": [1, 0, 0, 1]}}],
    }
    data = box.vertices.astype("<f4").tobytes() + box.faces.astype("<u4").tobytes()
    catalogue = b"name=Shop\nlicense=CC0\nid#1=box\nname#1=Box\nmodel#1=/box/box.obj\n"
    shop = {
        "PluginFurnitureCatalog.properties": catalogue,
        "box/box.obj": make_cube_obj().encode(),
        "box/cube.mtl": make_cube_mtl().encode(),
    }
    actor = _actor()
    return {
        "obj": {"cube.obj": textured.encode(), "cube.mtl": mtl, "skin.png": skin},
        "glb": {"box.glb": _exported(box, "glb")},
        "gltf": {"box.gltf": json.dumps(gltf).encode(), "data.bin": data},
        "ply": {"box.ply": _exported(box, "ply")},
        "stl": {"box.stl": _exported(box, "stl")},
        "dae": {"box.dae": _exported(box, "dae")},
        "sh3f": {"shop.sh3f": _zip(shop)},
        "sh3f, inside": {f"shop.sh3f/{name}": data for name, data in shop.items()},
        "g3d": {
            "man.g3d": game_files.g3d((vertices[None], uv, faces, "skin.png", 0)),
            "skin.png": skin,
        },
        "0 A.D.": {"public.zip": _zip(actor)},
        "0 A.D., inside": {f"public.zip/{name}": data for name, data in actor.items()},
    }


def _exported(mesh: trimesh.Trimesh, kind: str) -> bytes:
    data = mesh.export(file_type=kind)
    assert isinstance(data, bytes)
    return data


def _actor() -> Files:
    """The files of a soldier with a hat, as 0 A.D. keeps them."""
    vertices, uv, faces = game_files.grid(8)
    unmoved = (0, 0, 0, 0, 0, 0, 1)
    hat = (
        b'<actor><group><variant><mesh>hat.dae</mesh><textures><texture file="hat.png" name="baseTex"/></textures>'
        b"</variant></group><material>basic_trans.xml</material></actor>"
    )
    soldier = (
        b'<actor version="1"><group><variant frequency="3" file="base.xml"/></group><group><variant frequency="5">'
        b'<color>200 10 10</color><textures><texture file="skin.png" name="baseTex"/></textures></variant></group>'
        b"<material>player_trans.xml</material></actor>"
    )
    base = (
        b'<variant frequency="3"><mesh>body.dae</mesh><props><prop actor="props/hat.xml" attachpoint="head"/></props>'
        b"</variant>"
    )
    body = game_files.pmd(vertices, uv, faces, bones=[unmoved], props=[("head", unmoved, 0)])
    return {
        "art/actors/units/soldier.xml": soldier,
        "art/actors/props/hat.xml": hat,
        "art/variants/base.xml": base,
        "art/meshes/body.dae.cached.pmd": body,
        "art/meshes/hat.dae.cached.pmd": game_files.pmd(vertices * 0.5, uv, faces),
        "art/textures/skins/skin.png.cached.dds": game_files.picture((200, 0, 0, 255), (9, 9, 9, 0)),
        "art/textures/skins/hat.png.cached.dds": game_files.picture((0, 0, 0, 255), (250, 250, 250, 255)),
    }


def truncate(files: Files, rng: np.random.Generator) -> Files:
    """Cut a file off."""
    name = _pick(files, rng)
    return files | {name: files[name][: int(rng.integers(0, len(files[name])))]}


def flip_bytes(files: Files, rng: np.random.Generator) -> Files:
    """Change up to 16 bytes anywhere."""
    name = _pick(files, rng)
    data = bytearray(files[name])
    for at in rng.integers(0, len(data), rng.integers(1, 17)):
        data[at] = rng.integers(0, 256)
    return files | {name: bytes(data)}


def wrong_numbers(files: Files, rng: np.random.Generator) -> Files:
    """Put NaN, infinity, or huge and negative numbers where numbers stand, in text and in binary."""
    name = _pick(files, rng)
    data = files[name]
    words = [b"nan", b"inf", b"-1", b"99999999", b"1e39", b"0"]
    numbers = list(re.finditer(rb"(?<=[ ,:\[])-?\d+(\.\d+)?", data))
    if len(numbers) > 8 and b"\0" not in data[:64]:
        for match in sorted(rng.choice(len(numbers), 4, replace=False), reverse=True):
            start, end = numbers[match].span()
            data = data[:start] + words[rng.integers(len(words))] + data[end:]
        return files | {name: data}
    at = int(rng.integers(0, max(1, len(data) - 4)))
    value = rng.choice([np.nan, np.inf, -1e38, 1e-45])
    raw = struct.pack("<f", value) if rng.random() < 0.5 else struct.pack("<I", rng.choice([2**31, 2**32 - 1, 10**9]))
    return files | {name: data[:at] + raw + data[at + 4 :]}


def huge_picture(files: Files, rng: np.random.Generator) -> Files:
    """A picture of a few bytes that says it is 60,000 pixels wide and high."""
    head = struct.pack(">IIBBBBB", 60000, 60000, 8, 6, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b""))
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    text = make_cube_obj().replace("usemtl front", "vt 0 0\nusemtl painted").replace("f 5 6 8 7", "f 5/1 6/1 8/1 7/1")
    return {"cube.obj": text.encode(), "cube.mtl": b"newmtl painted\nmap_Kd skin.png\n", "skin.png": png}


def cyclic_nodes(files: Files, rng: np.random.Generator) -> Files:
    """A node graph in which a child is its own ancestor, a chain of thousands, or actors that wear themselves."""
    if rng.random() < 0.4:
        actor = _actor()
        if rng.random() < 0.5:
            actor["art/variants/base.xml"] = b'<variant file="base.xml"><mesh>body.dae</mesh></variant>'
        else:
            itself = b'<mesh>body.dae</mesh><props><prop actor="units/soldier.xml" attachpoint="head"/></props>'
            actor["art/variants/base.xml"] = b'<variant frequency="3">' + itself + b"</variant>"
        return {f"public.zip/{name}": data for name, data in actor.items()}
    gltf_files = seeds()["gltf"]
    scene = json.loads(gltf_files["box.gltf"])
    if rng.random() < 0.5:
        scene["nodes"][int(rng.integers(1, 3))]["children"] = [int(rng.integers(0, 3))]
    else:
        scene["nodes"] = [{"children": [k + 1]} for k in range(3000)] + [{"mesh": 0}]
    return gltf_files | {"box.gltf": json.dumps(scene).encode()}


def climbing_paths(files: Files, rng: np.random.Generator) -> Files:
    """Names that lead out of the folder or the archive."""
    way = rng.choice(["../../../../tmp/mv3d-fuzz-escape", "/tmp/mv3d-fuzz-escape", "..\\..\\mv3d-fuzz-escape"])
    escape = str(way).encode()
    kind = int(rng.integers(5))
    if kind == 0:
        obj = make_cube_obj(materials=f"{way}.mtl").encode()
        return {"cube.obj": obj, "cube.mtl": b"newmtl front\nmap_Kd " + escape + b".png\n"}
    if kind == 1:
        scene = json.loads(seeds()["gltf"]["box.gltf"])
        scene["buffers"][0]["uri"] = f"{way}.bin"
        return {"box.gltf": json.dumps(scene).encode()}
    if kind == 2:
        vertices, uv, faces = game_files.grid(8)
        return {"man.g3d": game_files.g3d((vertices[None], uv, faces, f"{way}.png", 0))}
    if kind == 3:
        inside = {name: data.replace(b"skin.png", escape) for name, data in _actor().items()}
        inside = {name: data.replace(b"hat.dae", b"../" * 4 + escape) for name, data in inside.items()}
        return {f"public.zip/{name}": data for name, data in inside.items()}
    catalogue = b"name=" + escape + b"\nid#1=" + escape + b"\nname#1=" + escape + b"\nmodel#1=/../" + escape + b".obj\n"
    inside = {
        "PluginFurnitureCatalog.properties": catalogue,
        f"../{way}.obj": make_cube_obj(materials=f"../{way}.mtl").encode(),
        f"../{way}.mtl": make_cube_mtl().encode(),
    }
    return {"shop.sh3f": _zip(inside)}


def laughing_xml(files: Files, rng: np.random.Generator) -> Files:
    """Entities that grow without end."""
    if rng.random() < 0.5:
        actor = _actor()
        actor["art/actors/units/soldier.xml"] = _LAUGHS + b"]><actor><material>&h;</material></actor>"
        return {f"public.zip/{name}": data for name, data in actor.items()}
    return {"box.dae": b'<?xml version="1.0"?>' + _LAUGHS + b"]><COLLADA>&h;</COLLADA>"}


MUTATIONS: tuple[Mutation, ...] = (
    truncate,
    flip_bytes,
    wrong_numbers,
    huge_picture,
    cyclic_nodes,
    climbing_paths,
    laughing_xml,
)
_SHARES = np.array([0.25, 0.25, 0.25, 0.05, 0.08, 0.09, 0.03])


def main() -> int:
    """Run it; returns 0 if nothing broke."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    good = seeds()
    ends: dict[str, str] = {}  # what became of each file, by its folder
    faults: list[str] = []
    objects: list[SourceObject] = []
    with tempfile.TemporaryDirectory(prefix="mv3d-fuzz-") as place:
        root, out = Path(place) / "objects", Path(place) / "out"
        for k in range(options.count):
            mutation = MUTATIONS[k] if k < len(MUTATIONS) else MUTATIONS[rng.choice(len(MUTATIONS), p=_SHARES)]
            kind = str(rng.choice(list(good)))
            files = mutation(good[kind], rng)
            folder = root / f"{k:04d}-{mutation.__name__.replace('_', '-')}"
            _write(files, folder)
            try:  # each alone: sources list what looks the same once
                listed = find_objects(folder)
                objects += [replace(item, object_id=f"{folder.name}/{item.object_id}") for item in listed]
            except Mv3dError as error:  # the list of objects itself is damaged: one line, and the user's to mend
                ends[folder.name] = "refused"
                faults += [f"{folder.name}: a message of several lines"] if "\n" in str(error) else []
                shutil.rmtree(folder)
        before = _listing(Path(place), out)
        entries = render_sources(objects, out, Settings(num_views=2, size_px=16), workers=options.workers, timeout_s=60)
        for item, entry in zip(objects, entries, strict=True):
            name = item.path.relative_to(root).parts[0]
            if entry.failed:
                ends[name] = "reported"
            elif entry.orbits:
                ends.setdefault(name, "rendered")
            else:
                faults.append(f"{entry.object_id}: neither rendered nor reported")
        faults += [f"{folder.name}: not listed" for folder in root.iterdir() if folder.name not in ends]
        faults += [f"appeared outside the output folder: {p}" for p in _listing(Path(place), out) - before]
        faults += [f"appeared: {p}" for p in Path("/tmp").glob("mv3d-fuzz-escape*")]
        faults += [f"left behind: {p}" for p in out.rglob(".partial-*")]
    counts = Counter(ends.values())
    print(f"{options.count} files: {counts['rendered']} rendered all the same, {counts['reported']} reported, ", end="")
    print(f"{counts['refused']} refused when listed, {len(faults)} faults")
    for reason, count in Counter(e.failed.split(":")[0] for e in entries if e.failed).most_common():
        print(f"  {count} {reason}")
    print("\n".join(faults))
    return int(bool(faults))


def _write(files: Files, folder: Path) -> None:
    """Put files into a folder, and into archives there where their paths say so."""
    folder.mkdir(parents=True)
    archives: dict[str, Files] = {}
    for name, data in files.items():
        first, _, inside = name.partition("/")
        if inside:
            archives.setdefault(first, {})[inside] = data
        else:
            (folder / name).write_bytes(data)
    for name, inner in archives.items():
        (folder / name).write_bytes(_zip(inner))


def _pick(files: Files, rng: np.random.Generator) -> str:
    return str(rng.choice([name for name, data in files.items() if data]))


def _zip(files: Files) -> bytes:
    with tempfile.TemporaryFile() as file:
        with zipfile.ZipFile(file, "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        file.seek(0)
        return file.read()


def _listing(place: Path, without: Path) -> set[Path]:
    return {path for path in place.rglob("*") if not path.is_relative_to(without)}


if __name__ == "__main__":
    sys.exit(main())
