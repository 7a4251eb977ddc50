"""What the page asks of mv3d: the functions behind ``mv3d orbit``, with a model that stays loaded."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mv3d.app.results import PageResult
from mv3d.errors import Mv3dError
from mv3d.image import cut_out, load_mask, load_picture
from mv3d.jobs import Job, load_asked, make_job_picture, make_orbits
from mv3d.options import OrbitOptions
from mv3d.orbit import Orbit
from mv3d.pixels import Frames
from mv3d.progress import OnStep

if TYPE_CHECKING:
    from mv3d.model.models import AnyModel

# Of two cores, with the bundled model, loaded.
ORBIT_SECONDS: Mapping[str, float] = {"loading": 0.2, "coarse": 3.0, "views": 5.0, "surface": 0.5, "texture": 6.0}
PROMPT_SECONDS: Mapping[str, float] = {"picture": 30.0}  # a guess: models of words are of many sizes


class LoadedModel:
    """The model that was asked for last; asked for again it is there at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked: tuple[object, ...] | None = None
        self._model: AnyModel | None = None

    def __call__(self, options: OrbitOptions) -> AnyModel:
        """Load what the options ask for, unless it is there; raises `Mv3dError` as `mv3d.jobs.load_asked`."""
        from mv3d.model.staged import whole_model

        asked = (options.model, options.lora, options.unfused, options.device)
        with self._lock:
            if self._model is None or asked != self._asked:
                self._model = None  # before the next one takes its place: two may not fit
                self._model, self._asked = whole_model(load_asked(options)), asked
            return self._model


def cut_out_of(result: PageResult, options: OrbitOptions) -> tuple[Frames, Frames]:
    """The picture of a result, (H, W, 4), and what of it is the object; raises `Mv3dError` as ``mv3d orbit`` would."""
    rgba = load_picture(result.picture)
    mask = None if result.mask is None else load_mask(result.mask, result.picture)
    return rgba, cut_out(rgba, options.matte, mask)


def make_prompted(result: PageResult, options: OrbitOptions, on_step: OnStep) -> None:
    """Make the picture of a result that begins with words; raises `Mv3dError` as ``mv3d orbit --prompt`` would."""
    make_job_picture(Job(result.picture, result.orbit, result.prompt), options, on_step)


def make_result(
    result: PageResult,
    options: OrbitOptions,
    load: LoadedModel,
    on_surface: Callable[[Orbit], None] | None,
    on_step: OnStep,
) -> None:
    """Make the orbit, with its mesh if that is asked for; raises `Mv3dError` as ``mv3d orbit`` would.

    ``on_surface`` gets the views drawn from the surface alone on the way, if the model has one.
    """
    on_step("loading", 0, 1)
    if not load(options).facts.turns:  # a clip has no surface
        options = replace(options, mesh=False, faces=OrbitOptions.faces, texture_size=OrbitOptions.texture_size)
    (made,) = make_orbits(
        [Job(result.picture, result.orbit, result.prompt)],
        replace(_as_masked(result, options), overwrite=True),
        keep_existing=False,
        command=command_of(result, options),
        on_step=lambda _, *step: on_step(*step),
        on_surface=None if on_surface is None else lambda _, drawn: on_surface(drawn),
        load=load,
    )
    if made.error is not None:
        raise made.error


def command_of(result: PageResult, options: OrbitOptions) -> str:
    """The command that makes the same; the picture, and the mask if there is one, by their bare names.

    A picture of words is made again, if the seed is still the one that it was made with.
    """
    asked, prompt = _as_masked(result, options), result.prompt
    words = ["mv3d", "orbit", result.picture.name]
    if prompt is not None and (prompt.seed, prompt.is_cut_out) == (asked.seed, asked.matte != "none"):
        words[2:] = ["--prompt", prompt.text]
        for name, value in vars(prompt.options).items():
            words += _words(f"--{name.replace('_', '-')}", value) if value is not None else []
    for field in fields(OrbitOptions):
        value = getattr(asked, field.name)
        if value != field.default:
            words += _words(f"--{field.name.replace('_', '-')}", value)
    return shlex.join(words)


def _as_masked(result: PageResult, options: OrbitOptions) -> OrbitOptions:
    """With the mask, if there is one: it goes before every matte, and the two together are refused."""
    return options if result.mask is None else replace(options, mask=result.mask, matte="auto")


def _words(flag: str, value: object) -> list[str]:
    if value is True:
        return [flag]
    if isinstance(value, tuple):
        return [word for one in value for word in (flag, str(one))]
    if isinstance(value, Path):
        return [flag, value.name]
    return [flag, f"{value:g}" if isinstance(value, float) else str(value)]


def message_of(error: Exception, result: PageResult | None = None) -> str:
    """One line about an error, with names as the visitor knows them and no folders of this machine."""
    line = " ".join(str(error).split())
    if not isinstance(error, (Mv3dError, OSError)):
        line = (
            f"something went wrong ({type(error).__name__}: {line}); try another picture, or tell the one who runs this"
        )
    if result is not None:
        for folder in (result.folder / "picture", result.folder):
            line = line.replace(f"{folder}/", "")
    return line if "." in line.split(" ")[0] else line[:1].upper() + line[1:]  # files keep their names
