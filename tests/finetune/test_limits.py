"""What a config may say: every value is checked when it is read, alone and beside the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune.__main__ import main
from finetune.read_config import load_config
from mv3d.errors import Mv3dError

DEBUG, LORA = Path("configs/debug.yaml"), Path("configs/mini_lora.yaml")

OUT_OF_BOUNDS = [
    (LORA, "diffusion.loop.batch_size=0", "loop: batch_size is 0; give from 1 to 65536"),
    (LORA, "diffusion.loop.batch_size=-2", "batch_size is -2"),
    (LORA, "diffusion.loop.steps=-1", "steps is -1"),
    (LORA, "diffusion.loop.learning_rate=0", "learning_rate is 0; give above 0"),
    (LORA, "diffusion.loop.learning_rate=.nan", "learning_rate must be a finite number"),
    (LORA, "diffusion.loop.learning_rate=.inf", "learning_rate must be a finite number"),
    (LORA, "diffusion.loop.learning_rate=1" + "0" * 400, "learning_rate must be a finite number"),
    (LORA, "diffusion.loop.max_grad_norm=0", "max_grad_norm is 0"),
    (LORA, "diffusion.loop.decay_after_steps=0", "decay_after_steps is 0"),
    (LORA, "diffusion.loop.ema_decay=1.5", "ema_decay is 1.5; give from 0 to 1"),
    (LORA, "diffusion.loop.adam_betas=[0.9, 1]", "adam_betas is 1; give from 0 to 0.999999"),
    (LORA, "diffusion.loop.adam_betas=[0.9]", "adam_betas [0.9]: give two"),
    (LORA, "diffusion.loop.accumulate=0", "accumulate is 0"),
    (LORA, "diffusion.loop.accumulate=3", "batch_size 2 is no multiple of 3 = 1 processes x 3 accumulated parts"),
    (LORA, "diffusion.loop.save_every=0", "save_every is 0"),
    (LORA, "diffusion.loop.log_every=0", "log_every is 0"),
    (LORA, "diffusion.loop.validate_every=-5", "validate_every is -5"),
    (LORA, "diffusion.p_mean=1e6", "p_mean is 1e+06; give from -20 to 20"),
    (LORA, "diffusion.condition_dropout=-0.1", "condition_dropout is -0.1"),
    (LORA, "diffusion.cond_noise_mean=.nan", "cond_noise_mean must be a finite number"),
    (LORA, "diffusion.lora.rank=0", "rank is 0"),
    (LORA, "diffusion.lora.alpha=-1", "alpha is -1"),
    (LORA, "diffusion.cache.samples_per_shard=0", "samples_per_shard is 0"),
    (LORA, "diffusion.cache.buffer_shards=0", "buffer_shards is 0"),
    (LORA, "num_views=0", "num_views is 0; give from 1 to 200"),
    (LORA, "resolution_px=63", "resolution_px is 63; give a multiple of 8 from 32 to 4096"),
    (LORA, "seed=-1", "seed is -1"),
    (LORA, "validation_split=vall", "validation_split must be one of train, val, test, got 'vall'"),
    (LORA, "data=[]", "data must be a list of one or more"),
    (LORA, "diffusion.channels=[48, 96]", "channels is 48; give a multiple of 32"),
    (LORA, "diffusion.channels=[64]", "1 channels and 3 heads; give one of each per level"),
    (LORA, "diffusion.heads=[2, 4, 5]", "192 channels cannot be divided among 5 heads"),
    (LORA, "diffusion.sigma_min=100", "sigma_min 100 is not below sigma_max 80"),
    (DEBUG, "resolution_px=63", "resolution_px is 63; give a multiple of 8"),
    (DEBUG, "autoencoder.channels=[8, 8, 8]", "3 levels; give 4"),
    (DEBUG, "autoencoder.channels=[8, 8, 12, 16]", "channels is 12; give a multiple of 8"),
    (DEBUG, "autoencoder.latent_channels=0", "latent_channels is 0"),
    (DEBUG, "autoencoder.kl_weight=-1", "kl_weight is -1"),
    (DEBUG, "coarse.rays_per_picture=0", "rays_per_picture is 0"),
    (DEBUG, "coarse.frozen_stages=8", "frozen_stages is 8; give from 0 to 7"),
    (DEBUG, "coarse.network.grid_size=9", "grid_size of a coarse network is 9; give a multiple of 8 from 8 to 512"),
    (DEBUG, "coarse.network.grid_channels=[8]", "grid_channels of a coarse network: 1 levels; give 4"),
    (
        DEBUG,
        "coarse.network.image_channels=[8, 12, 8, 16]",
        "image_channels of a coarse network is 12; give a",
    ),
    (
        DEBUG,
        "coarse.network.image_channels=[8, 8, 8, 8]",
        "last of image_channels of a coarse network is 8; give",
    ),
    (DEBUG, "coarse.network.fine_channels=6", "fine_channels of a coarse network is 6; give a multiple of 4"),
    (DEBUG, "coarse.network.picture_px=48", "picture_px of a coarse network is 48; give a multiple of 32"),
    (DEBUG, "coarse.network.backbone_px=0", "backbone_px of a coarse network is 0; give a multiple of 32"),
    (DEBUG, "coarse.network.num_bins=7", "num_bins of a coarse network is 7; give a multiple of 2"),
    (
        DEBUG,
        "coarse.network.rays_px=64",
        "rays_px of a coarse network is 64; give half of picture_px, 64",
    ),
    (DEBUG, "coarse.network.fov_deg=0", "fov_deg of a coarse network is 0; give from 1 to 170"),
    (DEBUG, "diffusion.pose_embed_dim=0", "pose_embed_dim is 0"),
    (DEBUG, "diffusion.heads=[3, 4]", "32 channels cannot be divided among 3 heads"),
    (DEBUG, "diffusion.sigma_max=0.001", "sigma_min 0.02 is not below sigma_max 0.001"),
    (DEBUG, "diffusion.sampling_steps=0", "sampling_steps is 0"),
]
NOT_TOGETHER = [
    (LORA, "loop.steps=3", "unknown key 'loop'; did you mean 'diffusion.loop'?"),
    (LORA, "num_views=~", "missing num_views: say it of what is made of mini"),
    (LORA, "model_name=mini", "missing model_name"),
    (LORA, "licence=CC0-1.0", "licence: that comes from the base, mini; leave it out"),
    (LORA, "coarse={loop: {steps: 1, batch_size: 1, learning_rate: 1}}", "coarse: mini has its own; leave it out"),
    (
        DEBUG,
        "volume={loop: {steps: 1}}",
        "unknown key 'volume'; known keys: data, run, diffusion, base, init, autoencoder, coarse",
    ),
    (
        LORA,
        "diffusion.channels=[64, 64, 192]",
        "diffusion.channels: mini has its own; leave it out, or begin with a new",
    ),
    (LORA, "diffusion.lpips_weight=1", "diffusion.lpips_weight: that is for a new model, without a base"),
    (LORA, "base=~", "a new model needs its stages autoencoder and coarse; or name a base"),
    (DEBUG, "coarse=~", "a new model needs its stages autoencoder and coarse"),
    (DEBUG, "init=base", "init: base: name the base"),
    (DEBUG, "diffusion.lora={rank: 4}", "diffusion.lora: that is for a base; name one, or leave it out"),
    (DEBUG, "diffusion.cache.flip=true", "diffusion.cache: that is for a base"),
    (DEBUG, "turns=false", "turns: that is for a base"),
]
NO_VALUES = [
    (LORA, "a=[8", "a=[8: the value is no readable YAML"),
    (LORA, "seed=2026-13-45", "no readable YAML"),
    (LORA, "seed=" + "[" * 1000, "no readable YAML: nested too deeply"),
    (LORA, "seed=" + "9" * 5000, "no readable YAML"),
    (LORA, "seed=&a [*a]", "seed must be int"),
    (LORA, "run=''", "run must be a path, got ''"),
    (LORA, 'run="a\\0b"', "run must be a path"),
    (LORA, "run=~no-such-user-at-all/run", "Could not determine home directory"),
    (LORA, "seed=true", "seed must be int, got True"),
]


@pytest.mark.parametrize(("config", "override", "message"), OUT_OF_BOUNDS + NOT_TOGETHER + NO_VALUES)
def test_a_value_that_cannot_be_is_one_line_that_says_what_can(config, override, message):
    with pytest.raises(Mv3dError) as caught:
        load_config(config, [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_expands_without_end_is_told_shortly():
    laughs = "{a: &a [x, x], " + ", ".join(
        f"{b}: &{b} [{', '.join(['*' + a] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    with pytest.raises(Mv3dError) as caught:
        load_config(LORA, [f"num_views={laughs}}}"])
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "diffusion.loop.batch_size=0"], "batch_size is 0"),
        (["--set", "a=[8"], "(--set)"),
        (["--set", "seed"], "'seed' is no key=value (--set)"),
        (["--minutes", "nan"], "nan minutes: give 0 or more (--minutes)"),
        (["--minutes=-1"], "-1 minutes: give 0 or more (--minutes)"),
        (["--processes", "2"], "torchrun --nproc-per-node starts so many (--processes)"),
        (["--dry-run", "--processes", "0"], "0 processes: give 1 or more (--processes)"),
        (["--dry-run", "--processes", "3"], "batch_size 2 is no multiple of 3 = 3 processes x 1"),
    ],
)
def test_nothing_begins_with_a_bad_value(tmp_path, capsys, arguments, message):
    run = tmp_path / "run"
    assert main([str(LORA), "--set", f"run={run}", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not run.exists()


@pytest.mark.parametrize("place", ["configs", "/dev/null"])
def test_a_config_that_is_no_file_is_one_line(place, capsys):
    assert main([place]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
