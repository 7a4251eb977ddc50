"""From picture files, or words, to orbit folders: what ``mv3d orbit`` does with one picture or a whole tree of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mv3d.clip import Clip, save_clip
from mv3d.device import pick_device
from mv3d.errors import Mv3dError
from mv3d.files import whole_file
from mv3d.generator import OrbitGenerator
from mv3d.more_pictures import load_cut_outs
from mv3d.option_settings import check_options, mesh_settings, video_fps
from mv3d.options import OrbitOptions
from mv3d.orbit import Facts, Orbit, check_replaceable, is_made, load_orbit, save_orbit
from mv3d.plan import MESH_NAME, Job, is_batch, plan_jobs, plan_prompt
from mv3d.progress import OnStep, begin_stage
from mv3d.prompt import PROMPT_FILE
from mv3d.transforms import CLIP_FILE

if TYPE_CHECKING:
    from mv3d.mesh import Mesh
    from mv3d.model.facts import ModelFacts
    from mv3d.model.lora import LoraUse
    from mv3d.model.staged import MaybeStaged

__all__ = [
    "Job",
    "Result",
    "is_batch",
    "load_asked",
    "make_job_picture",
    "make_orbits",
    "plan_jobs",
    "plan_prompt",
]


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


def make_orbits(
    jobs: Sequence[Job],
    options: OrbitOptions,
    *,
    keep_existing: bool,
    command: str | None = None,
    on_step: Callable[[Job, str, int, int], None] | None = None,
    on_model: Callable[[ModelFacts], None] | None = None,
    on_surface: Callable[[Job, Orbit], None] | None = None,
    load: Callable[[OrbitOptions], MaybeStaged] | None = None,
) -> Iterator[Result]:
    """Do the jobs one by one; a picture that fails is a result too, and the rest go on.

    The model is loaded when the first picture is ready for it, so that a bad picture costs no waiting.

    Args:
        jobs: from `plan_jobs`.
        options: the same for all.
        keep_existing: an orbit folder that is there already is a result, not an error. With ``options.mesh``, one that
            has no mesh yet always is: it is lifted.
        command: recorded in the orbit folders.
        on_step: called with the job, its stage (loading, picture, coarse, views, surface, texture), the stage's steps
            done and in all.
        on_model: called with the model's facts once it is loaded.
        on_surface: called with the job and its surface's drawn views, as of `mv3d.generate.generate`.
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
            if job.prompt is not None:
                generate = generate or _checked(options, load)
                make_job_picture(job, options, report)
            cut_outs = load_cut_outs(job.picture, options)
        except Mv3dError as error:
            yield Result(job, error=_of_words(error, job))
            continue
        if generate is None:
            generate = OrbitGenerator(options, load or load_asked)
        facts = generate.model.facts  # loads it, if it is not there yet; without it, no picture becomes anything
        if len(jobs) > 1:
            generate.load_all()  # what is wrong with it concerns all of them
        if on_model:
            on_model(facts)
            on_model = None
        try:
            made = generate(cut_outs, _facts(job, command), report, partial(on_surface, job) if on_surface else None)
            more = {} if job.prompt is None else {PROMPT_FILE: job.picture.read_bytes()}
            if isinstance(made, Clip):
                save_clip(made, job.folder, overwrite=options.overwrite, more=more)
            else:
                fps = video_fps(options, len(made.orbit))
                save_orbit(made.orbit, job.folder, overwrite=options.overwrite, frames_per_second=fps, more=more)
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


def make_job_picture(job: Job, options: OrbitOptions, on_step: OnStep | None = None) -> None:
    """Make the picture of a job that begins with words, unless it is there already.

    Raises:
        Mv3dError: if the model of words cannot be had, or makes no picture of them.
    """
    if job.prompt is None or job.picture.exists():
        return
    from mv3d.model.text_to_image import make_picture

    picture = make_picture(job.prompt, pick_device(options.device), options.kept, begin_stage(on_step, "picture"))
    with whole_file(job.picture) as partial_path:
        picture.save(partial_path)


def load_asked(options: OrbitOptions) -> MaybeStaged:
    """Load the model that is asked for, with its LoRAs, or begin to; raises `Mv3dError` where it cannot be had."""
    from mv3d.model.staged import load_in_stages

    uses = _asked_loras(options)  # first, since a big model takes its time to load
    device = pick_device(options.device)
    return load_in_stages(options.model, device, options.kept, uses, fuse=not options.unfused)


def _asked_loras(options: OrbitOptions) -> list[LoraUse]:
    if not options.lora:
        return []
    from mv3d.model.lora import parse_lora  # with diffusers

    return [parse_lora(text) for text in options.lora]


def _checked(options: OrbitOptions, load: Callable[[OrbitOptions], MaybeStaged] | None) -> OrbitGenerator:
    """What makes the orbit, asked before a picture is made of words, which takes its time: is all of it to be had?"""
    from mv3d.model.hub import resolve_model

    generator = OrbitGenerator(options, load or load_asked)
    resolve_model(options.model, options.kept.revision)
    _asked_loras(options)
    return generator


def _of_words(error: Mv3dError, job: Job) -> Mv3dError:
    """An error about a picture that nobody has seen, and whose file will be gone, in words of its prompt."""
    if job.prompt is None or str(job.picture) not in str(error):
        return error
    said = str(error).replace(str(job.picture), f"the picture of {job.prompt.text!r}")
    return Mv3dError(f"{said}; or another seed", argument=error.argument)


def _facts(job: Job, command: str | None) -> Facts:
    return Facts(source=job.picture.name, command=command, extra={} if job.prompt is None else job.prompt.facts())


def _is_kept(job: Job, options: OrbitOptions, *, keep_existing: bool) -> bool:
    """Whether the orbit is there and is to stay, or there and only its mesh is lacking."""
    lacks_mesh = options.mesh and not (job.folder / MESH_NAME).exists()
    return is_made(job.folder) and not options.overwrite and (keep_existing or lacks_mesh)


def _keep(job: Job, options: OrbitOptions, on_step: OnStep | None) -> Result:
    """The orbit that is there, lifted now if a mesh is wanted and there is none."""
    is_clip = (job.folder / CLIP_FILE).exists()
    if is_clip or not options.mesh:
        return Result(job, kept=True, is_clip=is_clip)
    mesh = job.folder / MESH_NAME
    if mesh.exists():
        return Result(job, mesh=mesh, kept=True)
    started = time.perf_counter()
    try:
        orbit = load_orbit(job.folder)
        there = orbit.facts.extra.get("prompt", orbit.facts.source)
        wanted = job.picture.name if job.prompt is None else job.prompt.text
        if there != wanted:
            raise Mv3dError(
                f"{job.folder} exists already and is the orbit of {there or 'another object'}, not of {wanted}; choose "
                "another name or overwrite it",
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
    save_mesh(mesh, job.folder / MESH_NAME)
    return job.folder / MESH_NAME
