"""Runs inside Blender: builds a scene from a GLB and the cameras of a JSON job, and saves it as a .blend.

Imports nothing of mv3d: Blender's Python has only the standard library, bpy and numpy. The job is written by
export/blend.py; its cameras are those of `mv3d.conventions.to_blender`.
"""

from __future__ import annotations

import json
import sys
from math import pi, radians
from pathlib import Path

import bpy  # pyright: ignore[reportMissingImports]
from mathutils import Matrix, Vector  # pyright: ignore[reportMissingImports]

_CREASE_DEG = 60  # as `mv3d.mesh.Mesh.corner_normals`


def main(job_path: str) -> None:
    """Do one job: everything the scene needs is inside the one file."""
    job = json.loads(Path(job_path).read_text())
    bpy.ops.wm.read_factory_settings(use_empty=True)
    import_mesh(job["mesh"])
    add_light()
    animate_camera(job["cameras"])
    set_up_render(job["cameras"], job["frames_per_second"])
    bpy.ops.file.pack_all()
    bpy.ops.wm.save_as_mainfile(filepath=job["out"], compress=True)


def import_mesh(path: str) -> None:
    """Import, without the empty that a glTF's root node becomes, smooth but for sharp edges."""
    bpy.ops.import_scene.gltf(filepath=path)
    for thing in list(bpy.data.objects):
        if thing.type == "MESH":
            placed = thing.matrix_world.copy()
            thing.parent = None
            thing.matrix_world = placed
            thing.name = thing.data.name = Path(path).stem
            join_seams(thing.data)
    for thing in list(bpy.data.objects):
        if thing.type != "MESH":
            bpy.data.objects.remove(thing)


def join_seams(mesh) -> None:
    """Join the vertices that glTF doubled at texture seams, and shade as the file says: its normal map relies on it."""
    import bmesh  # pyright: ignore[reportMissingImports]  (bpy has to come first)

    normals = [corner.vector[:] for corner in mesh.corner_normals]
    joined = bmesh.new()
    joined.from_mesh(mesh)
    bmesh.ops.remove_doubles(joined, verts=joined.verts, dist=1e-7)
    joined.to_mesh(mesh)
    joined.free()
    mesh.shade_smooth()
    if len(mesh.loops) == len(normals):
        mesh.normals_split_custom_set(normals)
    else:  # triangles that were lines are gone
        mesh.set_sharp_from_angle(angle=radians(_CREASE_DEG))


def add_light() -> None:
    """A white sky, and a sun from over the left shoulder of the first camera."""
    world = bpy.data.worlds.new("sky")
    world.use_nodes = True
    world.node_tree.nodes["Background"].inputs["Color"].default_value = (1, 1, 1, 1)
    world.node_tree.nodes["Background"].inputs["Strength"].default_value = 0.6
    bpy.context.scene.world = world
    sun = bpy.data.objects.new("sun", bpy.data.lights.new("sun", "SUN"))
    sun.data.energy = 2 * pi  # a white surface that faces it shines with 2
    sun.data.angle = radians(5)
    sun.rotation_euler = Vector((-0.5, -0.6, 0.6)).to_track_quat("Z", "Y").to_euler()
    bpy.context.scene.collection.objects.link(sun)


def animate_camera(views: list[dict]) -> None:
    """One camera with a keyframe for each view: place, lens and shift."""
    camera = bpy.data.objects.new("orbit", bpy.data.cameras.new("orbit"))
    bpy.context.scene.collection.objects.link(camera)
    bpy.context.scene.camera = camera
    camera.rotation_mode = "QUATERNION"
    lens = camera.data
    lens.sensor_fit = "AUTO"
    lens.sensor_width = views[0]["sensor_mm"]
    distances = [Matrix(view["matrix_world"]).translation.length for view in views]
    lens.clip_start, lens.clip_end = 0.01 * min(distances), 100 * max(distances)
    before = None
    for frame, view in enumerate(views, start=1):
        place, turn, _ = Matrix(view["matrix_world"]).decompose()
        if before is not None and turn.dot(before) < 0:
            turn.negate()  # the same rotation; between keyframes, the short way
        before = turn
        camera.location, camera.rotation_quaternion = place, turn
        lens.lens, lens.shift_x, lens.shift_y = view["lens_mm"], view["shift_x"], view["shift_y"]
        for name in ("location", "rotation_quaternion"):
            camera.keyframe_insert(name, frame=frame)
        for name in ("lens", "shift_x", "shift_y"):
            lens.keyframe_insert(name, frame=frame)
    bpy.context.scene.frame_set(1)


def set_up_render(views: list[dict], frames_per_second: int) -> None:
    """One frame per view, in the views' size; colours as they are, without a tone curve."""
    scene = bpy.context.scene
    scene.frame_start, scene.frame_end = 1, len(views)
    scene.render.fps = frames_per_second
    scene.render.engine = "CYCLES"
    scene.cycles.samples = 64
    scene.render.film_transparent = True
    scene.render.resolution_x, scene.render.resolution_y = views[0]["width_px"], views[0]["height_px"]
    scene.render.resolution_percentage = 100
    scene.render.image_settings.file_format = "PNG"
    scene.render.image_settings.color_mode = "RGBA"
    scene.render.filepath = "//render/"
    scene.view_settings.view_transform = "Standard"


if __name__ == "__main__":
    main(sys.argv[-1])
