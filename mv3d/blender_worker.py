"""Runs inside Blender: imports a mesh file and renders it with Cycles from each camera of a JSON job.

Imports nothing of mv3d: Blender's Python has only the standard library, bpy and numpy. The job is written by
blender.py; its cameras are those of `mv3d.conventions.to_blender`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import bpy  # pyright: ignore[reportMissingImports]
from mathutils import Matrix  # pyright: ignore[reportMissingImports]


def main(job_path: str) -> None:
    """Do one job: pictures ``000.png`` and so on, RGBA with straight alpha, into the job's folder."""
    job = json.loads(Path(job_path).read_text())
    bpy.ops.wm.read_factory_settings(use_empty=True)
    import_mesh(job["mesh"])
    if job["shading"] == "flat":
        flatten_materials()
    else:
        add_lights()
    set_up_cycles(job["samples"])
    for k, camera in enumerate(job["cameras"]):
        point_camera(camera)
        bpy.context.scene.render.filepath = str(Path(job["out"]) / f"{k:03d}.png")
        bpy.ops.render.render(write_still=True)


def import_mesh(path: str) -> None:
    """Import with Blender's own defaults, as a user would."""
    importers = {
        ".glb": bpy.ops.import_scene.gltf,
        ".gltf": bpy.ops.import_scene.gltf,
        ".obj": bpy.ops.wm.obj_import,
        ".ply": bpy.ops.wm.ply_import,
        ".stl": bpy.ops.wm.stl_import,
    }
    importers[Path(path).suffix.lower()](filepath=path)
    if not any(thing.type == "MESH" for thing in bpy.data.objects):
        sys.exit(f"nothing to see in {path}")


def flatten_materials() -> None:
    """Let every material glow in its base colour, alpha kept; objects without one are grey."""
    grey = bpy.data.materials.new("grey")
    grey.use_nodes = True
    for thing in bpy.data.objects:
        if thing.type == "MESH" and not thing.data.materials:
            thing.data.materials.append(grey)
    for material in bpy.data.materials:
        if material.use_nodes:
            _flatten(material.node_tree)


def _flatten(tree) -> None:
    output = tree.get_output_node("CYCLES")
    principled = next((node for node in tree.nodes if node.type == "BSDF_PRINCIPLED"), None)
    if output is None or principled is None:
        return
    glow = tree.nodes.new("ShaderNodeEmission")
    clear = tree.nodes.new("ShaderNodeBsdfTransparent")
    mix = tree.nodes.new("ShaderNodeMixShader")
    _carry_over(tree, principled.inputs["Base Color"], glow.inputs["Color"])
    _carry_over(tree, principled.inputs["Alpha"], mix.inputs["Fac"])
    tree.links.new(clear.outputs[0], mix.inputs[1])
    tree.links.new(glow.outputs[0], mix.inputs[2])
    tree.links.new(mix.outputs[0], output.inputs["Surface"])


def _carry_over(tree, source, target) -> None:
    if source.is_linked:
        tree.links.new(source.links[0].from_socket, target)
    else:
        target.default_value = source.default_value


def add_lights() -> None:
    """Add a white sky and a sun over the front camera's left shoulder."""
    world = bpy.data.worlds.new("sky")
    world.use_nodes = True
    world.node_tree.nodes["Background"].inputs["Color"].default_value = (1, 1, 1, 1)
    world.node_tree.nodes["Background"].inputs["Strength"].default_value = 0.6
    bpy.context.scene.world = world
    sun = bpy.data.objects.new("sun", bpy.data.lights.new("sun", "SUN"))
    sun.data.energy = 2.0
    sun.rotation_euler = (0.9, 0.0, -0.6)
    bpy.context.collection.objects.link(sun)


def set_up_cycles(samples: int) -> None:
    """Choose unbiased, repeatable pixels: no denoiser, no tone curve, no dither, each ray inside its own pixel."""
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    scene.cycles.device = "CPU"
    scene.cycles.samples = samples
    scene.cycles.use_adaptive_sampling = False
    scene.cycles.use_denoising = False
    scene.cycles.pixel_filter_type = "BOX"
    scene.cycles.seed = 0
    scene.cycles.transparent_max_bounces = 64
    scene.render.film_transparent = True
    scene.render.dither_intensity = 0.0
    scene.render.use_persistent_data = True
    scene.render.image_settings.file_format = "PNG"
    scene.render.image_settings.color_mode = "RGBA"
    scene.view_settings.view_transform = "Standard"


def point_camera(settings: dict) -> None:
    """Set the scene's camera and picture size."""
    scene = bpy.context.scene
    if scene.camera is None:
        scene.camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
        scene.collection.objects.link(scene.camera)
    scene.camera.matrix_world = Matrix(settings["matrix_world"])
    lens = scene.camera.data
    lens.sensor_fit = "AUTO"
    lens.sensor_width = settings["sensor_mm"]
    lens.lens = settings["lens_mm"]
    lens.shift_x, lens.shift_y = settings["shift_x"], settings["shift_y"]
    lens.clip_start, lens.clip_end = 0.01, 1000.0
    scene.render.resolution_x, scene.render.resolution_y = settings["width_px"], settings["height_px"]
    scene.render.resolution_percentage = 100


if __name__ == "__main__":
    main(sys.argv[-1])
