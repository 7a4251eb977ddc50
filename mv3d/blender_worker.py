"""Runs inside Blender: imports a mesh file and renders it with Cycles from each camera of a JSON job.

Imports nothing of mv3d: Blender's Python has only the standard library, bpy and numpy. The job is written by
blender.py; its cameras are those of `mv3d.conventions.to_blender`.
"""

from __future__ import annotations

import json
import sys
from math import pi, radians
from pathlib import Path

import bpy  # pyright: ignore[reportMissingImports]
from mathutils import Color, Matrix, Vector  # pyright: ignore[reportMissingImports]


def main(job_path: str) -> None:
    """Do one job: pictures ``000.png`` and so on, RGBA with straight alpha, into the job's folder."""
    job = json.loads(Path(job_path).read_text())
    bpy.ops.wm.read_factory_settings(use_empty=True)
    import_mesh(job["mesh"])
    if job.get("placement"):
        place(Matrix(job["placement"]))
    if job.get("srgb_factors"):
        linearise_factors()
    if job["shading"] == "flat":
        flatten_materials()
    else:
        add_lights(
            job.get("lights") or {"sky": 0.6, "ground": 0.6, "directions": [[-0.5, -0.6, 0.6]], "strengths": [2]}
        )
    set_up_cycles(job["samples"], job.get("threads", 0))
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
        ".usd": bpy.ops.wm.usd_import,
        ".usda": bpy.ops.wm.usd_import,
        ".usdc": bpy.ops.wm.usd_import,
        ".usdz": bpy.ops.wm.usd_import,
        ".dae": getattr(bpy.ops.wm, "collada_import", None),  # Blender 5 has none
    }
    importers[Path(path).suffix.lower()](filepath=path)
    if not any(thing.type == "MESH" for thing in bpy.data.objects):
        sys.exit(f"nothing to see in {path}")


def place(matrix: Matrix) -> None:
    """Move everything as one."""
    for thing in bpy.data.objects:
        if thing.parent is None:
            thing.matrix_world = matrix @ thing.matrix_world
    bpy.context.view_layer.update()


def linearise_factors() -> None:
    """Decode base colours that are numbers from sRGB."""
    for material in bpy.data.materials:
        for node in material.node_tree.nodes if material.use_nodes else ():
            if node.type == "BSDF_PRINCIPLED" and not node.inputs["Base Color"].is_linked:
                colour = node.inputs["Base Color"].default_value
                colour[:3] = Color(colour[:3]).from_srgb_to_scene_linear()


def flatten_materials() -> None:
    """Let every material glow in its base colour, alpha kept; what has none glows in its vertex colours, or is grey."""
    for thing in bpy.data.objects:
        if thing.type == "MESH" and not thing.data.materials:
            colours = thing.data.color_attributes
            thing.data.materials.append(_plain_material(colours[0].name if len(colours) else None))
    for material in bpy.data.materials:
        if material.use_nodes:
            _flatten(material.node_tree)


def _plain_material(vertex_colours):
    material = bpy.data.materials.new("plain")
    material.use_nodes = True
    if vertex_colours is not None:
        node = material.node_tree.nodes.new("ShaderNodeVertexColor")
        node.layer_name = vertex_colours
        principled = next(node for node in material.node_tree.nodes if node.type == "BSDF_PRINCIPLED")
        material.node_tree.links.new(node.outputs["Color"], principled.inputs["Base Color"])
    return material


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


def add_lights(lights: dict) -> None:
    """Add surroundings and lamps at infinity."""
    world = bpy.data.worlds.new("sky")
    world.use_nodes = True
    bpy.context.scene.world = world
    nodes, link = world.node_tree.nodes, world.node_tree.links.new
    background = nodes["Background"]
    where = nodes.new("ShaderNodeTexCoord").outputs["Generated"]
    if "environment" in lights:
        turn, picture = nodes.new("ShaderNodeMapping"), nodes.new("ShaderNodeTexEnvironment")
        turn.inputs["Rotation"].default_value[2] = radians(lights.get("turn_deg", 0.0))
        picture.image = bpy.data.images.load(lights["environment"])
        link(where, turn.inputs["Vector"])
        link(turn.outputs["Vector"], picture.inputs["Vector"])
        link(picture.outputs["Color"], background.inputs["Color"])
        return
    # Radiance ground + (sky - ground) * (z + 1) / 2 in direction z, about what a surface's normal gathers of it.
    split, height = nodes.new("ShaderNodeSeparateXYZ"), nodes.new("ShaderNodeMapRange")
    height.inputs["From Min"].default_value, height.inputs["From Max"].default_value = -1.0, 1.0
    height.inputs["To Min"].default_value, height.inputs["To Max"].default_value = lights["ground"], lights["sky"]
    link(where, split.inputs[0])
    link(split.outputs["Z"], height.inputs["Value"])
    link(height.outputs["Result"], background.inputs["Strength"])
    background.inputs["Color"].default_value = (1, 1, 1, 1)
    for k, (direction, strength) in enumerate(zip(lights["directions"], lights["strengths"], strict=True)):
        sun = bpy.data.objects.new(f"sun{k}", bpy.data.lights.new(f"sun{k}", "SUN"))
        sun.data.energy = strength * pi  # a white surface that faces it then shines with `strength`
        sun.data.angle = radians(5)
        sun.rotation_euler = Vector(direction).to_track_quat("Z", "Y").to_euler()
        bpy.context.collection.objects.link(sun)


def set_up_cycles(samples: int, threads: int) -> None:
    """Choose unbiased, repeatable pixels: no denoiser, no tone curve, no dither, each ray inside its own pixel."""
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    scene.cycles.device = "CPU"
    if threads:
        scene.render.threads_mode, scene.render.threads = "FIXED", threads
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
