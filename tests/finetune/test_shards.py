"""Shards: what was written is read, in an order that depends on nothing but seed and place."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from finetune.shards import Sample, ShardStream, decoded, list_shards, remove_shards, shard_path, write_shard
from mv3d.errors import Mv3dError

COUNT, PER_SHARD = 11, 3


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "shards"
    samples = [Sample({"object_id": f"o{k}"}, {"latents": np.full((2, 3), k, np.float16)}) for k in range(COUNT)]
    for k in range(0, COUNT, PER_SHARD):
        write_shard(shard_path(folder, k // PER_SHARD), "", iter(samples[k : k + PER_SHARD]))
    return folder


def make_stream(folder: Path, *, seed: int = 5, batch_size: int = 4) -> ShardStream:
    return ShardStream(list_shards(folder), seed, batch_size, buffer_shards=2)


def values(stream: ShardStream, step: int) -> list[int]:
    return [int(decoded(raw).arrays["latents"][0, 0]) for raw in stream.batch(step)]


def test_every_epoch_gives_each_sample_once_in_its_own_order(folder):
    stream = make_stream(folder)
    drawn = [value for step in range(COUNT) for value in values(stream, step)]  # four epochs
    epochs = [drawn[k : k + COUNT] for k in range(0, 4 * COUNT, COUNT)]
    assert all(sorted(epoch) == list(range(COUNT)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert drawn != [value for step in range(COUNT) for value in values(make_stream(folder, seed=6), step)]
    # Samples of a shard do not stay together: its three are neighbours in no epoch.
    assert any(abs(epochs[0].index(0) - epochs[0].index(k)) > 2 for k in (1, 2))


@pytest.mark.parametrize("step", [1, 2, 3, 7])
def test_a_run_goes_on_in_the_middle_of_an_epoch_as_if_it_had_not_stopped(folder, step):
    straight, resumed = make_stream(folder), make_stream(folder)
    expected = [values(straight, k) for k in range(step + 3)]
    assert [values(resumed, k) for k in range(step, step + 3)] == expected[step:]
    assert values(resumed, 0) == expected[0]  # and back


def test_shards_before_the_place_are_not_opened(folder):
    expected = values(make_stream(folder, batch_size=1), 7)  # in the second group of two shards
    stream = make_stream(folder, batch_size=1)
    for k in np.random.default_rng([5, 0]).permutation(4)[:2]:
        shard_path(folder, k).unlink()
    assert values(stream, 7) == expected


def test_objects_of_a_step_are_known_without_reading(folder):
    stream = make_stream(folder)
    for step in range(6):
        assert stream.object_ids(step) == [f"o{value}" for value in values(stream, step)]


def test_what_is_there_is_not_written_again(folder):
    before = shard_path(folder, 0).stat().st_mtime_ns

    def fail():
        raise AssertionError("asked for samples of a shard that is there")
        yield

    write_shard(shard_path(folder, 0), "", fail())
    assert shard_path(folder, 0).stat().st_mtime_ns == before


def test_equal_samples_make_equal_files(folder, tmp_path):
    path = tmp_path / "again" / "000000.tar"
    write_shard(path, "", iter([decoded(raw) for raw in _all_of(folder, 0)]))
    assert path.read_bytes() == shard_path(folder, 0).read_bytes()


def _all_of(folder: Path, number: int):
    shard = list_shards(folder)[number]
    stream = ShardStream([shard], 0, len(shard), 1)
    return sorted(stream.batch(0), key=lambda raw: raw["__key__"])


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:700]),
        lambda path: path.write_bytes(b"\x00" * path.stat().st_size),
        lambda path: path.unlink(),
        lambda path: path.with_suffix(".json").write_text("{"),
        lambda path: path.with_suffix(".json").write_text("[" * 100_000),
        lambda path: (path.with_suffix(".json").unlink(), os.mkfifo(path.with_suffix(".json"))),
    ],
)
def test_a_damaged_shard_is_named_with_the_way_out(folder, damage):
    stream = make_stream(folder)
    damage(shard_path(folder, 2))
    with pytest.raises(Mv3dError, match=r"000002.tar is damaged .*delete it and run the same command again") as caught:
        list_shards(folder) and [values(stream, step) for step in range(3)]
    assert "\n" not in str(caught.value)


def test_a_list_that_cannot_be_read_is_written_again_with_its_shard(folder):
    listing = shard_path(folder, 1).with_suffix(".json")
    for spoil in (os.mkfifo, lambda path: path.write_text("[" * 100_000)):
        listing.unlink()
        spoil(listing)
        write_shard(shard_path(folder, 1), "", iter([Sample({"object_id": "new"}, {})]))
        assert list_shards(folder)[1].object_ids == ("new",)


def test_what_is_only_called_like_a_shard_is_neither_read_nor_removed(folder):
    for name in ("000002-backup.tar", "7.tar", "notes.tar"):
        (folder / name).write_text("mine")
    assert len(list_shards(folder)) == 4
    remove_shards(folder, 2)
    assert sorted(path.name for path in folder.glob("*.tar")) == [
        "000000.tar",
        "000001.tar",
        "000002-backup.tar",
        "7.tar",
        "notes.tar",
    ]


def test_a_folder_without_shards_is_refused(tmp_path):
    with pytest.raises(Mv3dError, match="holds no encoded orbit"):
        list_shards(tmp_path)
