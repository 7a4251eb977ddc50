"""From picture files to orbit folders: what ``mv3d orbit`` does with one picture or a whole tree of them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mv3d.clip import Clip, save_clip
from mv3d.device import pick_device
from mv3d.errors import Mv3dError
from mv3d.more_pictures import frame_together, load_cut_outs, parse_views
from mv3d.option_settings import check_options, mesh_settings, orbit_settings, video_fps
from mv3d.options import OrbitOptions
from mv3d.orbit import Orbit, check_replaceable, is_made, load_orbit, save_orbit
from mv3d.pixels import Frames
from mv3d.progress import OnStep, begin_stage
from mv3d.transforms import CLIP_FILE

if TYPE_CHECKING:
    from mv3d.generate import Generated
    from mv3d.mesh import Mesh
    from mv3d.model.checkpoints import ModelFacts, OrbitModel

PICTURE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".webp", ".avif", ".tif", ".tiff", ".bmp", ".gif", ".jp2", ".tga"}
)

# How files are called, and an orbit, which is a folder, is not.
_FILE_SUFFIXES = PICTURE_SUFFIXES | {
    *(".glb", ".gltf", ".obj", ".ply", ".stl", ".usd", ".usda", ".usdc", ".usdz", ".blend", ".fbx"),
    *(".mp4", ".mov", ".mkv", ".webm", ".json", ".npz", ".zip"),
}
_MESH_NAME = "mesh.glb"
_LARGEST_PICTURE_PX = 2048  # that is kept beside the views


@dataclass(frozen=True)
class Job:
    """One picture and the orbit folder it becomes."""

    picture: Path
    folder: Path


@dataclass(frozen=True)
class Result:
    """What became of a job: an orbit or clip made, one kept from an earlier run, or the reason there is none."""

    job: Job
    seconds: float = 0.0
    mesh: Path | None = None
    kept: bool = False
    is_clip: bool = False
    """The model makes clips, of no known cameras, and the folder is one's."""
    error: Mv3dError | None = None


def plan_jobs(given: Sequence[Path], out: Path | None) -> tuple[Job, ...]:
    """Name the orbit folder of every picture.

    One picture becomes ``out``, or ``<stem>_orbit`` in the current folder. Of several, or of a folder of them, ``out``
    is the root of a tree that mirrors the pictures'.

    Raises:
        Mv3dError: if there is no picture, two would become the same folder, or ``out`` is called as a file is.
    """
    if not given:
        raise Mv3dError("name a picture, or a folder of pictures")
    if out is not None and out.suffix.lower() in _FILE_SUFFIXES:
        raise Mv3dError(
            f"{out}: an orbit is a folder, which is not called {out.suffix}; name it {out.with_suffix('')}, and make "
            f"files of it by mv3d lift or mv3d export, or have a {_MESH_NAME} in it",
            argument="mesh",
        )
    if not is_batch(given):
        return tuple(Job(path, out or Path(f"{path.stem}_orbit")) for path in given)
    jobs: dict[Path, Job] = {}
    for path in given:
        for picture in _find_pictures(path) if path.is_dir() else [path]:
            below = picture.relative_to(path if path.is_dir() else path.parent)
            folder = (out or Path()) / below.with_name(f"{below.stem}_orbit")
            if folder in jobs:
                raise Mv3dError(f"{jobs[folder].picture} and {picture} would both become {folder}; rename one")
            jobs[folder] = Job(picture, folder)
    if not jobs:
        raise Mv3dError(f"there is no picture in {', '.join(map(str, given))}")
    return tuple(jobs.values())


def is_batch(given: Sequence[Path]) -> bool:
    """Tell whether the command line names more than one picture file."""
    return len(given) > 1 or given[0].is_dir()


def make_orbits(
    jobs: Sequence[Job],
    options: OrbitOptions,
    *,
    keep_existing: bool,
    command: str | None = None,
    on_step: Callable[[Job, str, int, int], None] | None = None,
    on_model: Callable[[ModelFacts], None] | None = None,
    load: Callable[[OrbitOptions], OrbitModel] | None = None,
) -> Iterator[Result]:
    """Do the jobs one by one; a picture that fails is a result too, and the rest go on.

    The model is loaded when the first picture is ready for it, so that a bad picture costs no waiting.

    Args:
        jobs: from `plan_jobs`.
        options: the same for all.
        keep_existing: an orbit folder that is there already is a result, not an error. With ``options.mesh``, one that
            has no mesh yet always is: it is lifted.
        command: recorded in the orbit folders.
        on_step: called with the job, its stage (loading, coarse, views, surface, texture), the stage's steps done and
            in all.
        on_model: called with the model's facts once it is loaded.
        load: loads the model that the options ask for, `load_asked` if None; a server keeps it from job to job.

    Raises:
        Mv3dError: for what concerns all pictures: the model, the device, the settings.
    """
    check_options(options, len(jobs))
    generate = None
    for job in jobs:
        report = partial(on_step, job) if on_step else None
        if _is_kept(job, options, keep_existing=keep_existing):
            yield _keep(job, options, report)
            continue
        started = time.perf_counter()
        begin_stage(report, "loading")
        try:
            check_replaceable(job.folder, overwrite=options.overwrite)
            cut_outs = load_cut_outs(job.picture, options)
        except Mv3dError as error:
            yield Result(job, error=error)
            continue
        if generate is None:
            generate = _Generator(options, load or load_asked)
            if on_model:
                on_model(generate.model.facts)
        try:
            made = generate(cut_outs, job, command, report)
            if isinstance(made, Clip):
                save_clip(made, job.folder, overwrite=options.overwrite)
            else:
                fps = video_fps(options, len(made.orbit))
                save_orbit(made.orbit, job.folder, overwrite=options.overwrite, frames_per_second=fps)
        except Mv3dError as error:
            # Another process may have made it meanwhile: two that share a tree of pictures both come to its end.
            is_there = _is_kept(job, options, keep_existing=keep_existing)
            yield _keep(job, options, report) if is_there else Result(job, error=error)
            continue
        try:
            mesh = None
            if options.mesh and not isinstance(made, Clip):
                mesh = _save_mesh(made.texture_views(), made.surface, job, options, report)
        except Mv3dError as error:
            yield Result(job, error=error)
        else:
            yield Result(job, time.perf_counter() - started, mesh, is_clip=isinstance(made, Clip))


def load_asked(options: OrbitOptions) -> OrbitModel:
    """Load the model that is asked for, with its LoRAs; raises `Mv3dError` where one of them cannot be had."""
    from mv3d.model.loading import load_ready_model
    from mv3d.model.lora import parse_lora

    uses = [parse_lora(text) for text in options.lora]  # first, since a big model takes its time to load
    device = pick_device(options.device)
    return load_ready_model(options.model, device, options.kept, uses, fuse=not options.unfused)


def _find_pictures(folder: Path) -> Iterator[Path]:
    """All pictures below a folder, sorted, but for hidden folders and orbit folders (their frames are no input)."""
    for root, folders, files in os.walk(folder):
        if is_made(Path(root)):
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if Path(name).suffix.lower() in PICTURE_SUFFIXES and not name.startswith("."):
                yield Path(root, name)


def _is_kept(job: Job, options: OrbitOptions, *, keep_existing: bool) -> bool:
    """Whether the orbit is there and is to stay, or there and only its mesh is lacking."""
    lacks_mesh = options.mesh and not (job.folder / _MESH_NAME).exists()
    return is_made(job.folder) and not options.overwrite and (keep_existing or lacks_mesh)


def _keep(job: Job, options: OrbitOptions, on_step: OnStep | None) -> Result:
    """The orbit that is there, lifted now if a mesh is wanted and there is none."""
    is_clip = (job.folder / CLIP_FILE).exists()
    if is_clip or not options.mesh:
        return Result(job, kept=True, is_clip=is_clip)
    mesh = job.folder / _MESH_NAME
    if mesh.exists():
        return Result(job, mesh=mesh, kept=True)
    started = time.perf_counter()
    try:
        orbit = load_orbit(job.folder)
        if orbit.facts.source != job.picture.name:
            raise Mv3dError(
                f"{job.folder} exists already and is the orbit of {orbit.facts.source or 'another object'}, not of "
                f"{job.picture.name}; choose another name or overwrite it",
                argument="overwrite",
            )
        mesh = _save_mesh(orbit, None, job, options, on_step)
        return Result(job, mesh=mesh, kept=True, seconds=time.perf_counter() - started)
    except Mv3dError as error:
        return Result(job, error=error)


def _save_mesh(orbit: Orbit, surface: Mesh | None, job: Job, options: OrbitOptions, on_step: OnStep | None) -> Path:
    """Put the surface behind an orbit into its folder, in the views' colours; without one, the views are lifted."""
    from mv3d.export import save_mesh
    from mv3d.lift import lift_orbit, texture_surface

    settings = mesh_settings(options)
    if surface is None:
        mesh = lift_orbit(orbit, settings, on_step)
    else:
        mesh = texture_surface(surface, orbit, settings, on_step)
    save_mesh(mesh, job.folder / _MESH_NAME)
    return job.folder / _MESH_NAME


class _Generator:
    """The model, ready to make orbits."""

    def __init__(self, options: OrbitOptions, load: Callable[[OrbitOptions], OrbitModel]) -> None:
        from mv3d.generate import DEFAULT_ELEVATION_DEG

        self.options = options
        self.settings = orbit_settings(
            options, DEFAULT_ELEVATION_DEG if options.elevation == "auto" else options.elevation
        )
        if options.mesh:
            mesh_settings(options)
        self.model = load(options)
        self._check_asked()

    def _check_asked(self) -> None:
        asked = {"mesh": self.options.mesh, "swing": self.options.swing != 0, "preview": self.options.preview}
        given = [name for name, is_given in asked.items() if is_given]
        if given and not self.model.facts.turns:
            raise Mv3dError(
                f"{self.model.facts.name} makes clips of a moving camera, not orbits, so it has no {given[0]}; "
                "leave it out, or take a model of orbits",
                argument=given[0],
            )

    def _estimate(self, picture: Frames) -> float:
        import torch

        from mv3d.model.coarse_stage import estimate_elevation_deg

        assert self.model.coarse is not None
        given = torch.from_numpy(picture).permute(2, 0, 1).to(self.model.device)
        return round(estimate_elevation_deg(self.model.coarse, given), 1)

    def __call__(
        self, cut_outs: list[Frames], job: Job, command: str | None, on_step: OnStep | None
    ) -> Generated | Clip:
        """Make one orbit, with what is known of it, and the surface behind it; or a clip."""
        from mv3d.generate import PosedFrame, generate, generate_clip

        settings, keep = self.settings, self.options.keep_framing
        single = frame_together(cut_outs[:1], [(0.0, settings.elevation_deg)], keep_framing=keep)
        if not self.model.facts.turns:
            clip = generate_clip(single.at(self.model.output_px)[0], self.model, settings, on_step)
            return replace(clip, facts=replace(clip.facts, source=job.picture.name, command=command))
        estimated = self.options.elevation == "auto" and self.model.coarse is not None and not settings.relief
        if estimated:
            settings = orbit_settings(self.options, self._estimate(single.at(self.model.output_px)[0]))
        first_deg = settings.elevation_deg
        views = parse_views(self.options.view)
        poses = [(v.azimuth_deg, first_deg if v.elevation_deg is None else v.elevation_deg) for v in views]
        framed = frame_together(cut_outs, [(0.0, first_deg), *poses], keep_framing=keep)
        fit, *others = framed.at(max(self.model.output_px, settings.size_px or 0))
        more = [PosedFrame(frame, *pose) for frame, pose in zip(others, poses, strict=True)]
        made = generate(fit, self.model, settings, on_step, more)
        facts = replace(made.orbit.facts, source=job.picture.name, command=command)
        if estimated:
            facts = replace(facts, extra=facts.extra | {"estimated_elevation_deg": settings.elevation_deg})
        own_px = min(framed.own_px(), _LARGEST_PICTURE_PX)
        picture = framed.at(own_px)[0] if own_px > self.model.output_px else None
        shown = None if facts.input_index is None else picture
        return replace(made, orbit=replace(made.orbit, facts=facts, picture=shown), picture=picture)
