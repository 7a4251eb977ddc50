"""Packing, drawing and caching: the same data for the same seed, whatever happened before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from finetune.cache import DiskCache, weights_digest
from finetune.data import draw, list_orbits, pack_orbits
from mv3d.errors import Mv3dError
from mv3d.orbit import load_orbit, to_uint8


def test_pack_holds_the_orbits_bit_for_bit(rendered: Path, tmp_path: Path):
    pack = pack_orbits([rendered], tmp_path / "pack", 32)
    assert [entry.object_id for entry in pack.entries] == [f"toy/ball-{k}" for k in range(4)]
    for entry, frames in zip(pack.entries, pack.frames, strict=True):
        assert np.array_equal(frames, to_uint8(load_orbit(Path(entry.orbit)).frames))
    assert pack.indices("val") == [3]


def test_a_folder_of_a_job_arrays_shards_is_one_set(rendered: Path, tmp_path: Path):
    whole = [line for line in (rendered / "manifest.jsonl").read_text().splitlines() if line]
    for k in range(2):
        (tmp_path / f"manifest-{k}-of-2.jsonl").write_text("\n".join(whole[k::2]) + "\n")
    (tmp_path / "toy").symlink_to(rendered / "toy")
    one, both = ({(e.object_id, e.split) for e in list_orbits([folder])} for folder in (rendered, tmp_path))
    assert len(one) == 4
    assert both == one


def test_orbit_from_another_view_is_the_same_orbit_turned(rendered: Path, tmp_path: Path):
    pack = pack_orbits([rendered], tmp_path / "pack", 32)
    truth = load_orbit(Path(pack.entries[0].orbit))
    cameras = pack.cameras_from(0, 3)
    assert cameras[0].azimuth_deg == pytest.approx(0, abs=1e-9)
    for k, camera in enumerate(cameras):
        original = truth.cameras[(k + 3) % 4]
        assert np.allclose(
            camera.turned(truth.cameras[3].azimuth_deg).world_from_cam, original.world_from_cam, atol=1e-9
        )
    assert np.array_equal(pack.frames_from(0, 3)[1], pack.frames[0][0])


def test_every_epoch_draws_each_sample_once_in_its_own_order():
    drawn = np.concatenate([draw(3, 7, seed=5, step=k) for k in range(7)])  # three epochs of seven
    epochs = drawn.reshape(3, 7)
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert not np.array_equal(epochs[0], epochs[1])
    assert not np.array_equal(drawn, np.concatenate([draw(3, 7, seed=6, step=k) for k in range(7)]))


def test_cache_makes_a_row_once_even_across_processes(tmp_path: Path):
    made = []

    def make() -> torch.Tensor:
        made.append(1)
        return torch.full((2, 3), 0.5)

    first = DiskCache(tmp_path / "cache", (4, 2, 3)).get(1, make)
    again = DiskCache(tmp_path / "cache", (4, 2, 3)).get(1, make)
    assert len(made) == 1
    assert torch.equal(first, again)
    assert torch.equal(first, torch.full((2, 3), 0.5))


def test_a_process_that_comes_second_keeps_what_the_first_has_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    DiskCache(tmp_path / "cache", (4, 2)).get(1, lambda: torch.ones(2))
    monkeypatch.setattr(Path, "exists", lambda _: False)  # it looked before the first one's files were there
    second = DiskCache(tmp_path / "cache", (4, 2))
    assert torch.equal(second.get(1, lambda: torch.zeros(2)), torch.ones(2))
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["done.npy", "rows.npy"]
    assert list(tmp_path.iterdir()) == [tmp_path / "cache"]


def test_digest_changes_with_any_weight():
    a, b = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    b.load_state_dict(a.state_dict())
    assert weights_digest(a) == weights_digest(b)
    with torch.no_grad():
        b.bias[0] += 1e-3
    assert weights_digest(a) != weights_digest(b)


def test_a_folder_without_manifest_says_how_to_make_one(tmp_path: Path):
    with pytest.raises(Mv3dError, match=r"python -m render orbits"):
        pack_orbits([tmp_path], tmp_path / "pack", 32)
