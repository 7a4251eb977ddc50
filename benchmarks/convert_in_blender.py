"""Runs inside Blender: turns OBJ files into the other formats, under nested and turned parents.

    ~/.local/share/mv3d/blender/bin/python benchmarks/convert_in_blender.py OUT FILE.obj [FILE.obj ...]

The first file becomes a .glb, the second a .gltf, the third a .ply with vertex colours, and so on in turn.
"""

from __future__ import annotations

import sys
from pathlib import Path

import bpy  # pyright: ignore[reportMissingImports]


def main(out: str, *files: str) -> None:
    """Convert every file."""
    for k, file in enumerate(files):
        bpy.ops.wm.read_factory_settings(use_empty=True)
        bpy.ops.wm.obj_import(filepath=file)
        meshes = [thing for thing in bpy.data.objects if thing.type == "MESH"]
        grandparent, parent = (bpy.data.objects.new(name, None) for name in ("grandparent", "parent"))
        for thing in (grandparent, parent):
            bpy.context.collection.objects.link(thing)
        grandparent.rotation_euler, grandparent.scale = (0.0, 0.0, 0.4), (2.0, 2.0, 2.0)
        parent.parent, parent.location, parent.rotation_euler = grandparent, (3.0, 1.0, 2.0), (0.2, 0.1, 0.0)
        for mesh in meshes:
            mesh.parent = parent
        path = str(Path(out) / Path(file).stem)
        kind = ("glb", "gltf", "ply")[k % 3]
        if kind == "ply":
            for mesh in meshes:
                paint_corners(mesh.data)
            bpy.ops.wm.ply_export(filepath=path + ".ply", export_colors="SRGB", export_triangulated_mesh=True)
        else:
            form = {"glb": "GLB", "gltf": "GLTF_SEPARATE"}[kind]
            bpy.ops.export_scene.gltf(filepath=f"{path}.{kind}", export_format=form)


def paint_corners(mesh) -> None:
    """Give every corner its material's base colour."""
    layer = mesh.color_attributes.new("Col", "FLOAT_COLOR", "CORNER")
    for face in mesh.polygons:
        material = mesh.materials[face.material_index] if len(mesh.materials) else None
        colour = material.diffuse_color if material else (0.8, 0.8, 0.8, 1.0)
        for corner in face.loop_indices:
            layer.data[corner].color = colour


if __name__ == "__main__":
    main(*sys.argv[1:])
