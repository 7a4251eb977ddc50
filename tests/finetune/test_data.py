"""Drawing and encoding: the same data for the same seed, whatever happened before."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

import mv3d.dataset
from finetune.__main__ import main
from finetune.clips import ClipBatch, Clips
from finetune.data import RunOrbits, draw
from finetune.encode import OrbitEncoder, weights_digest
from finetune.networks import make_trainee
from finetune.processes import Processes
from finetune.read_config import load_config
from finetune.shards import Sample
from mv3d.model.autoencoder import encode_frames
from mv3d.pack import pack_orbits


def test_every_epoch_draws_each_sample_once_in_its_own_order():
    drawn = np.concatenate([draw(3, 7, seed=5, step=k) for k in range(7)])  # three epochs of seven
    epochs = drawn.reshape(3, 7)
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert not np.array_equal(epochs[0], epochs[1])
    assert not np.array_equal(drawn, np.concatenate([draw(3, 7, seed=6, step=k) for k in range(7)]))


@pytest.fixture
def clips(config_file: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes the clips of a small new model, as another process would; counts in ``clips.made`` what was encoded."""
    monkeypatch.setattr("finetune.stages.autoencoder.load_lpips", lambda _: torch.nn.Identity())
    for stage in ("autoencoder", "coarse"):
        assert main([str(config_file), "--stage", stage, "--set", f"{stage}.loop.steps=0"]) == 0
    config, encode = load_config(config_file, ["diffusion.inputs_per_orbit=2"]), OrbitEncoder.sample

    def counted(encoder: OrbitEncoder, k: int, variant: int) -> Sample:
        make.made.append((encoder.orbits.entries[k].object_id, variant))
        return encode(encoder, k, variant)

    def make() -> Clips:
        pack = pack_orbits(config.data, config.run / "pack-32", 32)
        model = make_trainee(config, pack).model
        make.made = []
        return Clips(config, model, RunOrbits.of_pack(pack, 1), Processes())

    monkeypatch.setattr(OrbitEncoder, "sample", counted)
    make.run = config.run
    return make


def epoch(clips: Clips) -> list[ClipBatch]:
    """Three orbits, from two of their views each, two at a time."""
    return [clips.batch(step, torch.Generator()) for step in range(3)]


def same(batches: list[ClipBatch], others: list[ClipBatch]) -> bool:
    def tensors(batch: ClipBatch) -> list[torch.Tensor]:
        conditions = batch.conditions
        assert batch.frames is not None
        assert conditions.poses is not None
        assert conditions.coarse_latents is not None
        return [batch.latents, batch.frames, conditions.image_latents, conditions.poses, conditions.coarse_latents]

    pairs = [zip(tensors(a), tensors(b), strict=True) for a, b in zip(batches, others, strict=True)]
    return all(torch.equal(a, b) for pair in pairs for a, b in pair)


def test_a_new_models_orbits_are_encoded_at_their_first_use_and_once(clips):
    first = clips()
    assert clips.made == []
    first.batch(0, torch.Generator())
    assert len(clips.made) == 2
    batches = epoch(first)
    everything = [(f"toy/ball-{k}", variant) for k in range(3) for variant in range(2)]
    assert sorted(clips.made) == everything
    assert same(epoch(first), batches)
    assert same(epoch(clips()), batches)  # a process that comes later
    assert clips.made == []


@pytest.mark.slow
def test_what_is_kept_is_as_it_was_made_whatever_training_rounds_to(clips):
    """Clips begin at an input view, whose latents are those of its frame, and nothing of autocast is kept."""
    with torch.autocast("cpu", torch.bfloat16):
        batches = epoch(clips())
    for path in clips.run.glob("latents-*/*.tar"):
        path.unlink()
    other = clips()
    assert same(epoch(other), batches)
    batch = batches[0]
    assert batch.frames is not None
    assert torch.equal(batch.conditions.image_latents, batch.latents[:, 0])
    with torch.no_grad():
        expected = encode_frames(other._model.vae, batch.frames.flatten(0, 1))
    torch.testing.assert_close(batch.latents.flatten(0, 1), expected, rtol=2e-3, atol=2e-3)  # half precision


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:700]),
        lambda path: path.write_bytes(path.read_bytes()[:1500] + b"\1" + path.read_bytes()[1501:]),
        lambda path: (path.unlink(), os.mkfifo(path)),
        lambda path: path.with_suffix(".json").write_text("{}"),
    ],
)
def test_what_was_changed_or_half_written_is_made_again(clips, damage):
    batches = epoch(clips())
    (path,) = clips.run.glob("latents-*/000003.tar")
    damage(path)
    assert same(epoch(clips()), batches)
    assert len(clips.made) == 1


def test_what_was_made_of_something_else_is_made_again(clips, rendered: Path, tmp_path: Path, monkeypatch):
    batches = epoch(clips())
    fingerprint = mv3d.dataset.fingerprint
    monkeypatch.setattr(
        mv3d.dataset, "fingerprint", lambda folder: fingerprint(folder) + ("new" if "ball-1" in str(folder) else "")
    )
    assert same(epoch(clips()), batches)
    assert sorted(clips.made) == [("toy/ball-1", 0), ("toy/ball-1", 1)]


def test_digest_changes_with_any_weight():
    a, b = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    b.load_state_dict(a.state_dict())
    assert weights_digest(a) == weights_digest(b)
    with torch.no_grad():
        b.bias[0] += 1e-3
    assert weights_digest(a) != weights_digest(b)
