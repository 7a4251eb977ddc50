"""Blender add-on: a panel that turns a picture of an object into a textured mesh with the ``mv3d`` command.

Install this one file: Edit > Preferences > Add-ons > Install from Disk. The panel is in the 3D view's sidebar (N), tab
"mv3d". mv3d itself runs in its own environment, as a process of its own; Blender needs nothing installed. What it
makes, the frames, the sheet and the mesh, stays in a folder beside the picture.
"""

# No `from __future__ import annotations`: Blender reads properties from the annotations as they are.
import codecs
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import bpy
from bpy.props import BoolProperty, FloatProperty, IntProperty, PointerProperty, StringProperty

bl_info = {
    "name": "Image to 3D (mv3d)",
    "author": "mv3d",
    "version": (1, 2, 0),
    "blender": (4, 2, 0),
    "location": "3D View > Sidebar > mv3d",
    "description": "Turn a picture of an object into a textured mesh",
    "category": "Import-Export",
}

_POLL_SECONDS = 0.2
_STEP = re.compile(r": (\w+) +(\d+)%\|.*\| (\d+:\d\d) left")  # what the progress bar of mv3d shows
_OLDEST = bl_info["blender"]


class Mv3dSettings(bpy.types.PropertyGroup):
    """What the panel asks for."""

    picture: StringProperty(
        name="Picture", subtype="FILE_PATH", description="A photo of one object on a plain background, or a cut-out"
    )
    command: StringProperty(
        name="mv3d",
        subtype="FILE_PATH",
        default="mv3d",
        description="The mv3d command: its name if it is on the PATH, or its path, such as .venv/bin/mv3d",
    )
    preview: BoolProperty(name="Preview", description="The surface alone, drawn from all sides: quicker")
    elevation: FloatProperty(
        name="Elevation",
        default=10.0,
        min=-80.0,
        max=80.0,
        description="Degrees that the picture's camera looks down on the object",
    )
    faces: IntProperty(
        name="Faces",
        default=0,
        min=0,
        soft_max=200_000,
        description="At most so many triangles, from 100 on; 0 leaves it to mv3d",
    )
    texture_size: IntProperty(
        name="Texture", default=1024, min=64, max=4096, subtype="PIXEL", description="Pixels of the texture's sides"
    )
    delight: BoolProperty(
        name="Take light out",
        description="Take light and shade out of the texture, as far as they follow from how the surface is turned",
    )
    seed: IntProperty(name="Seed", default=0, min=0, description="Another seed draws other views; the same, the same")


class Mv3dProcess:
    """mv3d as a process: started, polled without waiting, stopped; what it says on stderr is read by a thread."""

    def __init__(self, settings: Mv3dSettings) -> None:
        """Start it; raises OSError if the command cannot be run, ValueError if the picture is not named."""
        picture = bpy.path.abspath(settings.picture)
        if not picture:
            raise ValueError("choose a picture first")
        command = bpy.path.abspath(settings.command)
        program = shutil.which(command)
        if program is None:
            raise ValueError(f"there is no command {command}: install mv3d, and name its path here")
        self.name = Path(picture).stem
        self.beside = Path(picture).parent
        self.folder = Path(tempfile.mkdtemp(prefix="mv3d-blender-"))
        self.orbit = self.folder / f"{self.name}_orbit"
        arguments = ["orbit", picture, "--mesh", "-o", str(self.orbit), "--elevation", f"{settings.elevation:g}"]
        arguments += ["--texture-size", str(settings.texture_size), "--seed", str(settings.seed)]
        if settings.faces:
            arguments += ["--faces", str(settings.faces)]
        arguments += [f"--{name}" for name in ("delight", "preview") if getattr(settings, name)]
        # Blender's own Python must not leak into mv3d's.
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        environment["MV3D_PROGRESS"] = "1"
        self.progress, self.stage, self.left = 0.0, "loading", ""
        self.last_line = ""
        self.started = time.monotonic()
        self._process = subprocess.Popen(
            [program, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def seconds(self) -> float:
        """How long it has been running."""
        return time.monotonic() - self.started

    def poll(self) -> bool:
        """Tell whether it has ended."""
        return self._process.poll() is not None

    def result(self) -> Path:
        """Name the mesh of a process that has ended, and keep its folder.

        Raises RuntimeError with its one line if it failed. A folder that it has left all the same is kept, too: what is
        whole in it took its time.
        """
        self._reader.join()
        if self.orbit.exists():
            self._keep()
        if self._process.returncode:
            kept = f" (what there is of it is kept in {self.orbit})" if self.orbit.exists() else ""
            raise RuntimeError((self.last_line or f"mv3d failed with exit code {self._process.returncode}") + kept)
        return self.orbit / "mesh.glb"

    def _keep(self) -> None:
        """Move the orbit folder beside the picture, under a name that is free; it stays where that cannot be."""
        kept, number = self.beside / self.orbit.name, 2
        while kept.exists():
            kept, number = self.beside / f"{self.orbit.name}_{number}", number + 1
        try:
            shutil.move(self.orbit, kept)
        except OSError:
            self.folder = None  # and is not removed
        else:
            self.orbit = kept

    def close(self) -> None:
        """Stop it if it still runs, and remove what it wrote and nobody keeps."""
        if not self.poll():
            self._process.terminate()
        self._process.wait()
        self._reader.join()
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _read(self) -> None:
        pipe, rest = self._process.stderr, ""
        decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        while chunk := os.read(pipe.fileno(), 4096):
            # A progress bar's steps begin with a carriage return and end with nothing: the rest counts, too.
            *lines, rest = re.split(r"[\r\n]", rest + decode(chunk))
            for line in (*lines, rest):
                if step := _STEP.search(line):
                    self.stage, self.progress, self.left = step[1], int(step[2]) / 100, step[3]
                elif line.strip():
                    self.last_line = line.strip().removeprefix("mv3d: ")
        pipe.close()


def import_result(path: Path, name: str) -> bpy.types.Object:
    """Import the mesh, name and select it."""
    before = set(bpy.data.objects)
    bpy.ops.import_scene.gltf(filepath=str(path))
    made = [thing for thing in bpy.data.objects if thing not in before]
    (mesh,) = [thing for thing in made if thing.type == "MESH"]
    placed = mesh.matrix_world.copy()
    mesh.parent = None
    mesh.matrix_world = placed
    for thing in made:
        if thing is not mesh:  # the empty that glTF's root node becomes
            bpy.data.objects.remove(thing)
    mesh.name = mesh.data.name = name
    bpy.context.view_layer.objects.active = mesh
    mesh.select_set(True)
    return mesh


class MV3D_OT_image_to_3d(bpy.types.Operator):  # noqa: N801  (Blender's custom)
    """Run mv3d on the picture and import the mesh."""

    bl_idname = "mv3d.image_to_3d"
    bl_label = "Make 3D"
    bl_options = {"REGISTER", "UNDO"}

    running: Mv3dProcess | None = None  # of the class: one at a time, which the panel shows

    def invoke(self, context, event):
        """Start without waiting; a timer looks after it."""
        if not self._start(context):
            return {"CANCELLED"}
        manager = context.window_manager
        manager.modal_handler_add(self)
        self._timer = manager.event_timer_add(_POLL_SECONDS, window=context.window)
        manager.progress_begin(0, 100)
        return {"RUNNING_MODAL"}

    def modal(self, context, event):
        """Look whether it has ended; Escape stops it."""
        process = type(self).running
        if event.type == "ESC" or process is None:
            self._end(context)
            self.report({"WARNING"}, "mv3d: stopped")
            return {"CANCELLED"}
        if event.type != "TIMER":
            return {"PASS_THROUGH"}
        context.window_manager.progress_update(100 * process.progress)
        for area in context.screen.areas if context.screen else ():
            if area.type == "VIEW_3D":
                area.tag_redraw()
        if not process.poll():
            return {"PASS_THROUGH"}
        return self._finish(context)

    def execute(self, context):
        """Run to the end: for scripts, and for Blender without a window."""
        if not self._start(context):
            return {"CANCELLED"}
        while not type(self).running.poll():
            time.sleep(_POLL_SECONDS)
        return self._finish(context)

    def cancel(self, context):
        """Stop with Blender, or when another file is opened."""
        self._end(context)

    def _start(self, context) -> bool:
        if type(self).running is not None:
            self.report({"ERROR"}, "mv3d is running already")
            return False
        try:
            type(self).running = Mv3dProcess(context.scene.mv3d)
        except (OSError, ValueError) as error:
            self.report({"ERROR"}, f"mv3d: {error}")
            return False
        return True

    def _finish(self, context) -> set[str]:
        process = type(self).running
        seconds = process.seconds
        try:
            path = process.result()
        except RuntimeError as error:
            self.report({"ERROR"}, f"mv3d: {error}")
            return {"CANCELLED"}
        finally:
            self._end(context)
        try:
            mesh = import_result(path, process.name)
        except Exception as error:  # whatever the importer, or another add-on that listens to it, stumbles over
            reason = " ".join(str(error).split())
            self.report({"ERROR"}, f"mv3d: {path} is made, but Blender could not import it: {reason}")
            return {"CANCELLED"}
        self.report({"INFO"}, f"mv3d: {mesh.name} in {seconds:.0f} s; kept in {path.parent}")
        return {"FINISHED"}

    def _end(self, context) -> None:
        if getattr(self, "_timer", None):
            context.window_manager.event_timer_remove(self._timer)
            context.window_manager.progress_end()
            self._timer = None
        if type(self).running is not None:
            type(self).running.close()
            type(self).running = None


class _InSidebar:
    """Where the panel is."""

    bl_label = "Image to 3D (mv3d)"
    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "mv3d"


class MV3D_PT_panel(_InSidebar, bpy.types.Panel):  # noqa: N801
    """The panel in the sidebar."""

    def draw(self, context) -> None:
        """Lay out the settings, and the button or the progress."""
        settings, column = context.scene.mv3d, self.layout.column()
        for name in ("picture", "command", "elevation", "faces", "texture_size", "delight", "seed", "preview"):
            column.prop(settings, name)
        process = MV3D_OT_image_to_3d.running
        if process is None:
            column.operator(MV3D_OT_image_to_3d.bl_idname, icon="MESH_MONKEY")
        else:
            left = f", {process.left} left" if process.left else ""
            column.progress(factor=process.progress, text=f"{process.stage}{left} (Esc stops it)")


class MV3D_PT_too_old(_InSidebar, bpy.types.Panel):  # noqa: N801
    """In place of the panel, where Blender is too old for it."""

    def draw(self, context) -> None:
        """Say what is needed."""
        self.layout.label(text=f"Needs Blender {_dotted(_OLDEST)} or newer;", icon="ERROR")
        self.layout.label(text=f"this is {_dotted(blender_version())}.")


def blender_version() -> tuple[int, int, int]:
    """Of the Blender that runs this."""
    return tuple(bpy.app.version)


def _dotted(version: tuple[int, int, int]) -> str:
    return ".".join(map(str, version[:2]))


_CLASSES = (Mv3dSettings, MV3D_OT_image_to_3d, MV3D_PT_panel)


def register() -> None:
    """Add the panel to Blender; one that is too old gets a panel that says so."""
    if blender_version() < _OLDEST:
        bpy.utils.register_class(MV3D_PT_too_old)
        return
    for each in _CLASSES:
        bpy.utils.register_class(each)
    bpy.types.Scene.mv3d = PointerProperty(type=Mv3dSettings)


def unregister() -> None:
    """Take it away again, and stop what runs."""
    if not hasattr(bpy.types.Scene, "mv3d"):
        bpy.utils.unregister_class(MV3D_PT_too_old)
        return
    if MV3D_OT_image_to_3d.running is not None:
        MV3D_OT_image_to_3d.running.close()
        MV3D_OT_image_to_3d.running = None
    del bpy.types.Scene.mv3d
    for each in reversed(_CLASSES):
        bpy.utils.unregister_class(each)
