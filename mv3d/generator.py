"""The model behind ``mv3d orbit``, told what is asked of it: cut-outs of a picture become views."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from mv3d.clip import Clip
from mv3d.errors import Mv3dError
from mv3d.more_pictures import frame_together, parse_views
from mv3d.option_settings import mesh_settings, orbit_settings
from mv3d.options import OrbitOptions
from mv3d.orbit import Facts, Orbit
from mv3d.pixels import Frames
from mv3d.progress import OnStep

if TYPE_CHECKING:
    from mv3d.generate import Generated
    from mv3d.model.staged import MaybeStaged

_LARGEST_PICTURE_PX = 2048  # that is kept beside the views


class OrbitGenerator:
    """Makes orbits as options ask for them, by a model that is loaded when it is first needed."""

    def __init__(self, options: OrbitOptions, load: Callable[[OrbitOptions], MaybeStaged]) -> None:
        from mv3d.generate import DEFAULT_ELEVATION_DEG

        self.options = options
        self.settings = orbit_settings(
            options, DEFAULT_ELEVATION_DEG if options.elevation == "auto" else options.elevation
        )
        if options.mesh:
            mesh_settings(options)
        self._load = load

    @cached_property
    def model(self) -> MaybeStaged:
        """The model, all of it or its first stage; raises `Mv3dError` if it cannot be had, or what is asked of it."""
        model = self._load(self.options)
        asked = {"mesh": self.options.mesh, "swing": self.options.swing != 0, "preview": self.options.preview}
        given = [name for name, is_given in asked.items() if is_given]
        if given and not model.facts.turns:
            raise Mv3dError(
                f"{model.facts.name} makes clips of a moving camera, not orbits, so it has no {given[0]}; "
                "leave it out, or take a model of orbits",
                argument=given[0],
            )
        return model

    def load_all(self) -> None:
        """Load all that the options need of the model now, not when it is needed; raises as ``model``."""
        from mv3d.model.staged import whole_model

        if not self.options.preview:
            whole_model(self.model)

    def __call__(
        self,
        cut_outs: list[Frames],
        known: Facts,
        on_step: OnStep | None = None,
        on_surface: Callable[[Orbit], None] | None = None,
    ) -> Generated | Clip:
        """Make one orbit, and the surface behind it; or a clip.

        Args:
            cut_outs: of the picture, then of its other views.
            known: source, command and extra facts of what is made.
            on_step: as of `mv3d.generate.generate`.
            on_surface: as of `mv3d.generate.generate`.
        """
        from mv3d.generate import PosedFrame, generate, generate_clip

        settings, keep = self.settings, self.options.keep_framing
        single = frame_together(cut_outs[:1], [(0.0, settings.elevation_deg)], keep_framing=keep)
        if not self.model.facts.turns:
            clip = generate_clip(single.at(self.model.output_px)[0], self.model, settings, on_step)
            return replace(clip, facts=_together(clip.facts, known))
        estimated = self.options.elevation == "auto" and self.model.coarse is not None and not settings.relief
        if estimated:
            settings = orbit_settings(self.options, self._estimate(single.at(self.model.output_px)[0]))
        first_deg = settings.elevation_deg
        views = parse_views(self.options.view)
        poses = [(v.azimuth_deg, first_deg if v.elevation_deg is None else v.elevation_deg) for v in views]
        framed = frame_together(cut_outs, [(0.0, first_deg), *poses], keep_framing=keep)
        fit, *others = framed.at(max(self.model.output_px, settings.size_px or 0))
        more = [PosedFrame(frame, *pose) for frame, pose in zip(others, poses, strict=True)]
        made = generate(fit, self.model, settings, on_step, more, on_surface)
        facts = _together(made.orbit.facts, known)
        if estimated:
            facts = replace(facts, extra=facts.extra | {"estimated_elevation_deg": settings.elevation_deg})
        own_px = min(framed.own_px(), _LARGEST_PICTURE_PX)
        picture = framed.at(own_px)[0] if own_px > self.model.output_px else None
        shown = None if facts.input_index is None else picture
        return replace(made, orbit=replace(made.orbit, facts=facts, picture=shown), picture=picture)

    def _estimate(self, picture: Frames) -> float:
        import torch

        from mv3d.model.coarse_stage import estimate_elevation_deg

        assert self.model.coarse is not None
        given = torch.from_numpy(picture).permute(2, 0, 1).to(self.model.device)
        return round(estimate_elevation_deg(self.model.coarse, given), 1)


def _together(made: Facts, known: Facts) -> Facts:
    return replace(made, source=known.source, command=known.command, extra=made.extra | known.extra)
