"""An autoencoder that decodes to larger frames than it encodes: the model around it, and how it is trained."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from finetune.__main__ import main
from finetune.checkpoint import latest_checkpoint
from finetune.pictures import shrunk, to_tensor
from mv3d.generate import GenerateSettings, generate_orbit
from mv3d.model.alpha import to_autoencoder
from mv3d.model.autoencoder import Autoencoder, RgbaAutoencoder, decode, encode
from mv3d.model.checkpoints import load_model
from mv3d.orbit import load_orbit
from mv3d.pixels import resize, to_uint8


def _train(config: Path, run: Path, data: Path, *settings: str) -> int:
    given = (f"run={run}", f"data={data}", *settings)
    return main([str(config), *(word for text in given for word in ("--set", text))])


def test_before_training_enlarged_frames_average_to_the_others():
    torch.manual_seed(0)
    plain, larger = RgbaAutoencoder((8, 8, 8)), RgbaAutoencoder((8, 8, 8), upscale_factor=2)
    larger.load_state_dict({k: v for k, v in plain.state_dict().items() if "decoder" not in k}, strict=False)
    rgba = F.interpolate(torch.rand(2, 4, 4, 4), (32, 32), mode="bicubic").clamp(0, 1)
    latents = encode(larger, to_autoencoder(rgba, 4)).mode()
    torch.testing.assert_close(latents, encode(plain, to_autoencoder(rgba, 4)).mode())
    assert decode(larger, latents).shape == (2, 4, 64, 64)
    torch.testing.assert_close(F.avg_pool2d(decode(larger, latents), 2), decode(plain, latents), atol=0.02, rtol=0)


def test_shrinking_keeps_colours_and_coverage(rendered: Path):
    frames = load_orbit(next(rendered.glob("toy/*/0"))).frames
    small = shrunk(to_tensor(to_uint8(frames)), 16)
    torch.testing.assert_close(small[:, 3].mean(), torch.tensor(frames[..., 3].mean()), atol=2e-3, rtol=0)
    assert small[:, :3].amax() <= frames[..., :3].max() + 2e-3
    inside = small[:, 3] == 1
    colours = small.movedim(1, -1)[inside][:, :3].reshape(-1, 3)
    assert len(colours) > 20
    assert colours.amin() >= frames[frames[..., 3] > 0][:, :3].min() - 2e-3


def _never_shown(vae: Autoencoder) -> RgbaAutoencoder:
    """The same weights, but for those of the views."""
    blind = RgbaAutoencoder(
        (8, 8, 8, 8), latent_channels=4, upscale_factor=2, scaling_factor=vae.config["scaling_factor"]
    )
    blind.load_state_dict({key: value for key, value in vae.state_dict().items() if "decoder.view_" not in key})
    return blind.eval()


@pytest.mark.slow
def test_a_model_that_enlarges_and_one_that_gets_a_larger_decoder(
    config_file: Path, tmp_path: Path, rendered: Path, large: Path
):
    short = [f"{stage}.loop.{key}={value}" for stage in ("coarse", "diffusion") for key, value in
             {"steps": 1, "validate_every": 1}.items()]  # fmt: skip
    assert _train(config_file, tmp_path / "plain", rendered, "autoencoder.loop.steps=2", *short) == 0
    plain = load_model(tmp_path / "plain" / "model")
    assert plain.output_px == 32

    more = (f"start_from={tmp_path / 'plain' / 'model'}", "autoencoder.upscale_factor=2", *short)
    assert _train(config_file, tmp_path / "run", large, *more, "autoencoder.decoder_only=true") == 0
    model = load_model(tmp_path / "run" / "model")
    assert (model.output_px, model.facts.resolution_px) == (64, 32)
    latest = latest_checkpoint(tmp_path / "run" / "autoencoder")
    assert latest is not None
    trained = load_file(latest / "network.safetensors")
    given = load_file(tmp_path / "plain" / "model" / "vae" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(trained[k], v.float()) for k, v in given.items() if k.startswith(("encoder", "quant_conv")))
    assert trained["decoder.conv_out.weight"].any()  # was zero
    assert not torch.equal(trained["decoder.conv_in.weight"], given["decoder.conv_in.weight"].float())
    log = [json.loads(line) for line in (tmp_path / "run" / "autoencoder" / "log.jsonl").read_text().splitlines()]
    assert log[-1]["val_psnr"] > 5

    # Trained along with the UNet, the decoder changes, and with it the model; nothing else of the autoencoder does. It
    # may then be taught to see coarse views, which the one it begins with never did.
    along = ("diffusion.train_decoder=true", "diffusion.pixel_weight=1", f"start_from={tmp_path / 'run' / 'model'}",
             "autoencoder.decoder_sees_views=true")  # fmt: skip
    more = ("autoencoder.upscale_factor=2", "autoencoder.loop.steps=0", "coarse.loop.steps=0", *short[2:])
    assert _train(config_file, tmp_path / "along", large, *more, *along) == 0
    before, after = (
        load_file(tmp_path / run / "model" / "vae" / "diffusion_pytorch_model.safetensors") for run in ("run", "along")
    )
    changed = {key.split(".")[0] for key, value in before.items() if not torch.equal(value, after[key])}
    assert changed == {"decoder"}
    assert all(after[f"decoder.view_{layer}.weight"].any() for layer in ("share", "projections.0"))  # were zero

    picture = load_orbit(large / "toy" / "ball-3" / "0").frames[0]
    seeing = load_model(tmp_path / "along" / "model")
    frames = generate_orbit(picture, seeing, GenerateSettings(num_views=4)).frames
    blinded = generate_orbit(
        picture, replace(seeing, vae=_never_shown(seeing.vae)), GenerateSettings(num_views=4)
    ).frames
    assert not np.array_equal(frames, blinded)
    orbit = generate_orbit(picture, model, GenerateSettings(num_views=4))
    assert orbit.frames.shape == (4, 64, 64, 4)
    assert np.array_equal(orbit.frames[0], picture)
    assert orbit.cameras[0].width_px == 64
    # The networks see the picture at their own size; its coarse views are as large as what the decoder makes.
    smaller = replace(model, vae=plain.vae)
    small = generate_orbit(resize(picture, 32, 32), smaller, GenerateSettings(num_views=4))
    preview = generate_orbit(picture, model, GenerateSettings(num_views=4, preview=True)).frames
    assert preview.shape == orbit.frames.shape
    assert (preview[..., 3] > 0.5).any(axis=(1, 2)).all()
    assert small.frames.shape == (4, 32, 32, 4)


def test_an_autoencoder_alone_learns_though_its_decoder_is_shown_nothing(
    config_file: Path, tmp_path: Path, rendered: Path
):
    seeing = ("autoencoder.decoder_sees_views=true", "diffusion.train_decoder=true", "autoencoder.loop.steps=2")
    short = ("coarse.loop.steps=0", "diffusion.loop.steps=0")
    assert _train(config_file, tmp_path / "run", rendered, *seeing, *short) == 0
    weights = load_file(tmp_path / "run" / "model" / "vae" / "diffusion_pytorch_model.safetensors")
    assert weights["decoder.conv_out.weight"].any()
    assert not weights["decoder.view_share.weight"].any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["autoencoder.upscale_factor=2"], "--size 64"),
        (["autoencoder.upscale_factor=3"], "upscale_factor 3 is no power"),
        (["autoencoder.decoder_only=true"], "name a model folder"),
        (["diffusion.train_decoder=true", "diffusion.lpips_weight=0"], "needs a lpips_weight or a pixel_weight"),
        (["autoencoder.decoder_sees_views=true"], "decoder_sees_views needs diffusion.train_decoder"),
        (["diffusion.discriminator_weight=0.1", "diffusion.lpips_weight=0"], "discriminator_weight is a share"),
    ],
)
def test_what_cannot_be_trained_is_one_line(
    config_file, tmp_path, rendered, large, capsys, monkeypatch, settings, message
):
    monkeypatch.setenv("MV3D_CACHE", str(tmp_path / "no weights"))  # it is told before any are wanted
    data = rendered if "size" in message else large
    assert _train(config_file, tmp_path / "run", data, *settings) == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
    assert not list(tmp_path.glob("run/autoencoder/step*"))
