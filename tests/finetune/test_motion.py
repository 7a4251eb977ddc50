"""New networks on clips of a moving camera, and how the camera of a clip is found out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.camera_motion import estimate_motions, wanted_motion
from finetune.__main__ import main
from finetune.data import OrbitFrames
from finetune.read_config import load_config
from finetune.stages.diffusion import DiffusionTraining
from mv3d.cameras import Camera
from mv3d.errors import Mv3dError
from mv3d.generate import GenerateSettings, generate_orbit
from mv3d.model.checkpoints import load_model
from mv3d.model.lora import LoraUse, with_loras
from mv3d.model.lora_file import LORA_FILE
from render.camera_paths import FARTHEST, MOTIONS, Motion
from tests.finetune.test_adapt import LORA

NEW_UNET = "channels: [32, 32]\nheads: [1, 1]\nsampling_steps: 3\n"
CLIPS = "turns: false\n"
SIZE_PX = 32


@pytest.mark.slow
def test_a_new_network_learns_clips_and_becomes_the_base_of_a_lora(write_recipe, tmp_path):
    base = write_recipe("base", more=NEW_UNET, conditions="{poses: false}", top=CLIPS + "init: random\n")
    assert main([str(base)]) == 0
    model = load_model(tmp_path / "base/model")
    assert (model.facts.turns, model.facts.num_steps, model.facts.guidance_high) == (False, 3, 1.0)
    assert (model.unet.config["pose_embed_dim"], model.coarse) == (0, None)
    assert tuple(model.unet.config["block_out_channels"]) == (32, 32)
    with pytest.raises(Mv3dError, match="toy makes clips of a moving camera, not orbits"):
        generate_orbit(np.ones((SIZE_PX, SIZE_PX, 4), dtype=np.float32), model, GenerateSettings(4))

    lora = write_recipe("lora", more=LORA, conditions="{poses: false}", top=CLIPS)
    assert main([str(lora), "--set", f"base={tmp_path}/base/model"]) == 0
    path = tmp_path / "lora/lora" / LORA_FILE
    noisy, context = torch.randn(1, 4, 8, 4, 4), torch.randn(1, 1, 16)
    outputs = []
    for scale in (None, 0.0, 1.0):
        used = load_model(tmp_path / "base/model")
        used = used if scale is None else with_loras(used, [LoraUse(path, scale)])
        with torch.no_grad():
            outputs.append(used.unet(noisy, torch.zeros(1), context, torch.tensor([[6.0, 127.0, 0.02]])))
    assert torch.equal(outputs[0], outputs[1])
    assert (outputs[2] - outputs[0]).abs().max() > 1e-5


def test_a_clip_is_not_gone_round(write_recipe):
    def firsts(turns: bool) -> set[int]:
        recipe = write_recipe(conditions="{poses: false}")
        stage = DiffusionTraining(load_config(recipe, ["num_views=2", f"turns={str(turns).lower()}"]))
        sample = stage.clips.samples(0)[0]
        stage.close()
        latents = torch.from_numpy(sample.arrays["latents"]).float()
        clips = [stage.clips.clip(sample, start).latents[0] for start in range(8)]
        places = [[int((latents - frame).abs().amax(dim=(1, 2, 3)).argmin()) for frame in clip] for clip in clips]
        assert all((second - first) % 4 == 2 for first, second in places)
        return {first for first, _ in places}

    assert firsts(turns=True) == {0, 1, 2, 3}
    assert firsts(turns=False) == {0, 1}  # the later ones have no frame two further on


def ball(camera: Camera) -> torch.Tensor:
    """A ball with a pattern, traced: (4, S, S)."""
    directions, radius = camera.directions(camera.pixel_grid()), 0.45
    along = -(directions @ camera.position)
    nearest = camera.position + directions * along[..., None]
    reach = radius**2 - np.square(nearest).sum(-1)
    hits = nearest - directions * np.sqrt(np.maximum(reach, 0))[..., None]
    rgb = 0.5 + 0.5 * np.sin(hits * (7.0, 11.0, 9.0) + (0.0, 1.0, 2.0))
    rgba = np.concatenate([rgb, (reach > 0)[..., None]], axis=-1) * (reach > 0)[..., None]
    return torch.from_numpy(rgba).permute(2, 0, 1).float()


@pytest.mark.slow
def test_the_motion_of_a_traced_clip_is_found():
    first = Camera.looking_at_origin(0, 12, 2.2, size_px=SIZE_PX)
    around = [Motion(azimuth_deg=FARTHEST.azimuth_deg * k / 7).moved(first, 1.0) for k in range(-7, 8)]
    known = OrbitFrames(torch.stack([ball(c) for c in around]), tuple(around))
    motions = [(0, 0, 0), (-1, 0, 0), (1, 0, 0.5), (0, -1, 0), (-3 / 7, 0.5, -1), (0, 0, 1)]
    clips = []
    for azimuth, pan, zoom in motions:
        motion = Motion(azimuth * FARTHEST.azimuth_deg, pan * FARTHEST.pan_deg, FARTHEST.zoom**zoom)
        frames = torch.stack([ball(motion.moved(first, share)) for share in np.linspace(0, 1, 8).tolist()])
        clips.append(frames[:, :3] * frames[:, 3:] + 1 - frames[:, 3:])
    np.testing.assert_allclose(estimate_motions(torch.stack(clips), known, first), motions, atol=1e-9)


def test_what_is_wanted_is_what_the_renderer_calls_so():
    assert set(MOTIONS) >= {"orbit-left", "zoom-in", "pan-right"}
    np.testing.assert_allclose(wanted_motion("orbit-left+zoom-in"), (-1, 0, 1))
    np.testing.assert_allclose(wanted_motion("pan-right"), (0, -1, 0))
    with pytest.raises(Mv3dError, match="there is no motion up; choose from still, orbit-left"):
        wanted_motion("up")
