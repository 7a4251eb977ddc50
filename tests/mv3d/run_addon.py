"""Runs inside Blender: registers the add-on, presses its button, and notes what came of it."""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import bpy  # pyright: ignore[reportMissingImports]


def main(job_path: str) -> None:
    job = json.loads(Path(job_path).read_text())
    spec = importlib.util.spec_from_file_location("mv3d_addon", job["addon"])
    addon = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(addon)
    bpy.ops.wm.read_factory_settings(use_empty=True)
    if "version" in job:
        addon.blender_version = lambda: tuple(job["version"])
        Path(job["out"], "facts.json").write_text(json.dumps(look_at_old_panel(addon)))
        return
    addon.register()
    settings = bpy.context.scene.mv3d
    for name, value in job["settings"].items():
        setattr(settings, name, value)
    facts = {"panel": bpy.types.MV3D_PT_panel.bl_label}
    if job["modal"]:
        facts |= press_button(addon, Path(job["out"]))
    else:
        try:
            facts["ended"] = sorted(bpy.ops.mv3d.image_to_3d())
        except RuntimeError as error:  # what an operator's report of an error becomes in a script
            facts["error"] = str(error)
    facts["objects"] = [look_at(thing) for thing in bpy.data.objects]
    facts["left"] = addon.MV3D_OT_image_to_3d.running is not None
    addon.unregister()
    facts["unregistered"] = not hasattr(bpy.types.Scene, "mv3d")
    Path(job["out"], "facts.json").write_text(json.dumps(facts))
    if any(thing.type == "MESH" for thing in bpy.data.objects):
        bpy.ops.export_scene.gltf(filepath=str(Path(job["out"], "result.glb")), export_apply=True)


def look_at_old_panel(addon) -> dict:
    """What is registered, and what the panel says, in a Blender that is too old."""
    addon.register()
    panel = MagicMock()
    addon.MV3D_PT_too_old.draw(panel, None)
    facts = {
        "said": [call.kwargs["text"] for call in panel.layout.label.call_args_list],
        "panel": bpy.types.MV3D_PT_too_old.bl_label,
        "registered": hasattr(bpy.types.Scene, "mv3d"),
    }
    addon.unregister()
    return facts | {"unregistered": not hasattr(bpy.types, "MV3D_PT_too_old")}


def press_button(addon, out: Path) -> dict:
    """Do what Blender's event loop does, which does not run without a window: invoke, then timer events."""
    methods = {name: part for name, part in vars(addon.MV3D_OT_image_to_3d).items() if not name.startswith("__")}
    operator = type("Pressed", (), methods)()
    operator.report = MagicMock()
    context = SimpleNamespace(scene=bpy.context.scene, window=None, screen=None, window_manager=MagicMock())
    ended, progress, stage, left = operator.invoke(context, None), 0.0, "", ""
    while ended in ({"RUNNING_MODAL"}, {"PASS_THROUGH"}):
        time.sleep(0.05)
        running = type(operator).running
        progress, stage, left = running.progress, running.stage, running.left
        if progress == 0.75:
            (out / "seen").touch()
        ended = operator.modal(context, SimpleNamespace(type="TIMER"))
    reports = [call.args[1] for call in operator.report.call_args_list]
    return {"ended": sorted(ended), "progress": [progress, stage, left], "reports": reports}


def look_at(thing) -> dict:
    corners = [thing.matrix_world @ vertex.co for vertex in thing.data.vertices]
    return {
        "name": thing.name,
        "type": thing.type,
        "size": [max(c[axis] for c in corners) - min(c[axis] for c in corners) for axis in range(3)],
        "faces": len(thing.evaluated_get(bpy.context.evaluated_depsgraph_get()).data.polygons),
        "textures": [
            [list(node.image.size), node.image.packed_file is not None]
            for material in thing.data.materials
            for node in material.node_tree.nodes
            if node.type == "TEX_IMAGE"
        ],
    }


if __name__ == "__main__":
    main(sys.argv[-1])
