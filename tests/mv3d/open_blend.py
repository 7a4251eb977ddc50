"""Runs inside Blender: opens a .blend as a user would, notes what is in it, and renders its animation."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import bpy  # pyright: ignore[reportMissingImports]


def main(job_path: str) -> None:
    job = json.loads(Path(job_path).read_text())
    bpy.ops.wm.open_mainfile(filepath=job["blend"])
    scene = bpy.context.scene
    meshes = [thing for thing in bpy.data.objects if thing.type == "MESH"]
    corners = [thing.matrix_world @ vertex.co for thing in meshes for vertex in thing.data.vertices]
    textures = [image for image in bpy.data.images if image.type == "IMAGE"]
    facts = {
        "objects": sorted((thing.type, thing.name) for thing in bpy.data.objects),
        "low": [min(corner[axis] for corner in corners) for axis in range(3)],
        "high": [max(corner[axis] for corner in corners) for axis in range(3)],
        "frames": [scene.frame_start, scene.frame_end],
        "keyframes": sorted({point.co[0] for curve in _curves(scene.camera) for point in curve.keyframe_points}),
        "size": [scene.render.resolution_x, scene.render.resolution_y, scene.render.resolution_percentage],
        "packed": [image.packed_file is not None for image in textures],
        "faces_at_edges": _faces_at_edges(meshes[0].data),
        "corner_normals": [corner.vector[:] for corner in meshes[0].data.corner_normals],
    }
    Path(job["out"], "facts.json").write_text(json.dumps(facts))
    if job["flat"]:
        for material in bpy.data.materials:
            _show_base_colour(material.node_tree)
    scene.cycles.samples = 4
    scene.cycles.use_denoising = False
    scene.render.resolution_percentage = job["percent"]
    scene.render.filepath = str(Path(job["out"], "####"))
    scene.render.use_persistent_data = True
    bpy.ops.render.render(animation=True)


def _curves(camera):
    action = camera.animation_data.action
    if hasattr(action, "fcurves"):
        return action.fcurves
    return [c for layer in action.layers for strip in layer.strips for bag in strip.channelbags for c in bag.fcurves]


def _faces_at_edges(mesh) -> list[int]:
    import bmesh  # pyright: ignore[reportMissingImports]  (bpy has to come first)

    shape = bmesh.new()
    shape.from_mesh(mesh)
    return sorted({len(edge.link_faces) for edge in shape.edges})


def _show_base_colour(tree) -> None:
    principled = next(node for node in tree.nodes if node.type == "BSDF_PRINCIPLED")
    glow = tree.nodes.new("ShaderNodeEmission")
    tree.links.new(principled.inputs["Base Color"].links[0].from_socket, glow.inputs["Color"])
    tree.links.new(glow.outputs[0], tree.get_output_node("CYCLES").inputs["Surface"])


if __name__ == "__main__":
    main(sys.argv[-1])
