"""Consistency distillation: one step of the student does what all further steps of the teacher, guided, would do.

Song et al. 2023 (arXiv 2303.01469), algorithm 2 and equation 7, on a video model as AnimateLCM has it (Wang et al.
2024, arXiv 2402.00769). Four choices keep it small:

* Levels are the very ones that the teacher's sampling steps through, down to 0, where a clip is its own answer. So the
  student is EDM's denoiser as it stands, begins as its teacher, and no other boundary condition has to be built in.
* The target is the student itself, without its gradients, as Lu & Song 2024 (arXiv 2410.11081) distil, and not an
  average of its weights; such an average is what is kept and scored, as for every stage.
* The distance is pseudo-Huber (Song & Dhariwal 2024, arXiv 2310.14189, section 3.3): all noise levels pull alike,
  however far off they are.
* The teacher's guidance is part of its step (LCM: Luo et al. 2023, arXiv 2310.04378, section 4.2), at the base's own
  strength, so the student needs none and makes one estimate per step where its teacher makes two.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from finetune.config import RunConfig
from finetune.diffusion_config import Conditioning
from mv3d.errors import Mv3dError
from mv3d.model.checkpoints import ModelFacts, OrbitModel
from mv3d.model.conditioning import Conditions
from mv3d.model.denoiser import Denoiser
from mv3d.model.pipeline import guidance_scales
from mv3d.model.sampling import Denoise, euler_step, guided, karras_sigmas
from mv3d.model.unet import OrbitUNet

_HUBER = 0.00054  # of each element, so that of d elements c = 0.00054 sqrt(d)


def consistency_loss(
    student: Denoise, target: Denoise, teacher: Denoise, clean: Tensor, noise: Tensor, sigmas: Tensor, at: Tensor
) -> Tensor:
    """How far the student's answers at neighbouring points of the teacher's path are apart, (B,).

    Args:
        student: what is trained.
        target: gives the answer at the less noisy of the two points; its gradients are not followed.
        teacher: makes the step between the points, guided.
        clean: (B, F, C, H, W) scaled latents.
        noise: (B, F, C, H, W) of unit variance.
        sigmas: (N + 1,) noise levels, falling to 0.
        at: (B,) which of the first N each clip is brought to.
    """
    level, next_level = sigmas[at], sigmas[at + 1]
    wide, next_wide = (x.view(-1, 1, 1, 1, 1) for x in (level, next_level))
    noisy = clean + wide * noise
    with torch.no_grad():
        nearer = euler_step(noisy, teacher(noisy, level), wide, next_wide)
        arrived = next_level == 0  # where the network is not defined, and a clip is its own answer
        answer = target(nearer, next_level.where(~arrived, level))
        answer = torch.where(arrived.view(-1, 1, 1, 1, 1), nearer, answer)
    squared = (student(noisy, level) - answer).square().mean(dim=(1, 2, 3, 4))
    return (squared + _HUBER**2).sqrt() - _HUBER


def sampling_facts(facts: ModelFacts, config: RunConfig) -> dict[str, Any]:
    """How what is made of a base is sampled, where not as the base: by a distillation, or as orbits and no clips.

    Raises:
        Mv3dError: if the base is distilled already, or steps are asked for that are none, or other conditions, which a
            teacher has not learnt.
    """
    wanted = config.diffusion.distillation
    if wanted is None:
        return {} if config.turns == facts.turns else {"turns": config.turns}
    if facts.teacher_steps is not None:
        raise Mv3dError(f"{facts.name} is distilled already; distil the model that it was made of")
    if config.diffusion.conditions != Conditioning():
        raise Mv3dError("distillation: a model is distilled with the conditions that it has; leave out conditions")
    if not 1 <= wanted.num_steps <= wanted.teacher_steps:
        raise Mv3dError(f"distillation: num_steps {wanted.num_steps}: give 1 to teacher_steps, {wanted.teacher_steps}")
    return {
        "num_steps": wanted.num_steps,
        "teacher_steps": wanted.teacher_steps,
        "sigma_min": facts.sigma_min,
        "sigma_max": facts.sigma_max,
        "guidance": "constant",
        "guidance_low": 1.0,
        "guidance_high": 1.0,
    }


class Distiller:
    """The teacher: the base, guided as it is sampled.

    A LoRA's teacher is the network with the LoRA switched off; otherwise it is a copy, which takes its memory.
    """

    def __init__(self, student: OrbitModel, facts: ModelFacts, config: RunConfig) -> None:
        """Take a student that has learnt nothing yet, and the facts by which its base, the teacher, is sampled."""
        wanted = config.diffusion.distillation
        assert wanted is not None
        self.sigmas = karras_sigmas(wanted.teacher_steps, facts.sigma_min, facts.sigma_max)
        self._scales = guidance_scales(facts, student.facts.num_views)
        self._latent_scale = student.vae.config["scaling_factor"]
        self._copy = copy.deepcopy(student.unet).requires_grad_(False) if config.diffusion.lora is None else None

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """At which of the teacher's steps so many clips are, (count,)."""
        return torch.randint(len(self.sigmas) - 1, (count,), generator=generator)

    def loss(self, unet: OrbitUNet, clean: Tensor, noise: Tensor, at: Tensor, conditions: Conditions) -> Tensor:
        """`consistency_loss` of a student, (B,); conditions as for EDM's loss."""

        def student(noisy: Tensor, sigma: Tensor) -> Tensor:
            return Denoiser(unet, self._latent_scale)(noisy, sigma, conditions)

        def teacher(noisy: Tensor, sigma: Tensor) -> Tensor:
            with self._teaching(unet) as network:
                return guided(Denoiser(network, self._latent_scale), conditions, self._scales)(noisy, sigma)

        sigmas = self.sigmas.to(clean.device)
        return consistency_loss(student, student, teacher, clean, noise, sigmas, at.to(clean.device))

    @contextmanager
    def _teaching(self, unet: OrbitUNet) -> Iterator[OrbitUNet]:
        if self._copy is not None:
            yield self._copy
            return
        unet.disable_adapters()
        try:
            yield unet
        finally:
            unet.enable_adapters()
