"""WebDataset shards of encoded orbits: written once, read in an order that depends on seed and epoch alone.

A shard is a tar of samples (``<key>.json`` and some ``<key>.<name>.npy``) beside a small JSON that tells what it was
made of, what it holds, what was left out, and its checksum; either is whole or absent. Which sample is the n-th of a
run is a function of (seed, n), whatever the number of processes and wherever a run goes on. Shards of many samples are
streamed, from front to back: each epoch mixes the shards, and the samples of a few at a time, which are held in memory;
shards before the place where a run goes on are not opened. Shards of one sample are read, and made, one by one.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from webdataset.tariterators import group_by_keys, tar_file_expander
from webdataset.writer import TarWriter

from finetune.processes import MicroBatch
from mv3d.errors import Mv3dError
from mv3d.files import read_json, whole_file

RawSample = dict[str, Any]
_PREFETCHED_BATCHES = 2
_NAME = re.compile(r"\d{6}\.tar")


@dataclass(frozen=True)
class Sample:
    """One encoded orbit: facts, and half-precision arrays by name."""

    facts: dict[str, Any]
    arrays: dict[str, np.ndarray]


@dataclass(frozen=True)
class LeftOut:
    """An orbit that cannot be encoded, by its folder."""

    orbit: str
    reason: str


@dataclass(frozen=True)
class Shard:
    """A shard and what its list says of it."""

    path: Path
    bytes: int
    sha256: str
    object_ids: tuple[str, ...]
    left_out: dict[str, str]
    """Why orbits, by their folder, are not in it."""

    def __len__(self) -> int:
        return len(self.object_ids)


def shard_path(folder: Path, number: int) -> Path:
    """Where a shard is."""
    return folder / f"{number:06d}.tar"


def write_shard(path: Path, key: str, samples: Iterator[Sample | LeftOut]) -> None:
    """Write a shard, then its list; nothing happens if both are there already and were made of what ``key`` tells.

    Raises:
        Mv3dError: if it cannot be written.
    """
    listing = path.with_suffix(".json")
    if path.is_file() and _key_of(listing) == key:
        return
    listing.unlink(missing_ok=True)  # it must not tell of the bytes that come now
    ids, left_out = [], {}
    try:
        with whole_file(path) as partial, TarWriter(str(partial), mtime=0) as tar:
            for sample in samples:
                if isinstance(sample, LeftOut):
                    left_out[sample.orbit] = sample.reason
                    continue
                name = f"{path.stem}-{len(ids):05d}"
                ids.append(sample.facts["object_id"])
                arrays = {f"{name}.npy": _npy(array) for name, array in sample.arrays.items()}
                tar.write({"__key__": name, "json": json.dumps(sample.facts).encode(), **arrays})
        facts = {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        with whole_file(listing) as partial:
            partial.write_text(json.dumps({"key": key, **facts, "object_ids": ids, "left_out": left_out}))
    except OSError as error:
        message = f"{path} cannot be written: {error.strerror}; free space and run again: it goes on here"
        raise Mv3dError(message) from error


def remove_shards(folder: Path, first: int) -> None:
    """Remove those of a number from ``first`` on, which belong to data that there were once."""
    for path in _shard_paths(folder):
        if int(path.stem) >= first:
            path.with_suffix(".json").unlink(missing_ok=True)
            path.unlink()


def list_shards(folder: Path) -> tuple[Shard, ...]:
    """All shards of a folder, in order.

    Raises:
        Mv3dError: if there is none, or a list is damaged.
    """
    shards = [_listed(path) for path in _shard_paths(folder)]
    if not any(len(shard) for shard in shards):
        reasons = [reason for shard in shards for reason in shard.left_out.values()]
        raise Mv3dError(f"{folder} holds no encoded orbit" + (f"; the first: {reasons[0]}" if reasons else ""))
    return tuple(shards)


def load_sample(path: Path, key: str) -> Sample | None:
    """The one sample of a shard that was made of what ``key`` tells; None if there is none as it was written."""
    if not path.is_file() or _key_of(path.with_suffix(".json")) != key:
        return None
    try:
        return decoded(_read(_listed(path))[0])
    except Mv3dError:
        path.unlink(missing_ok=True)
        return None


def decoded(raw: RawSample) -> Sample:
    """Read a sample's bytes.

    Raises:
        Mv3dError: naming the shard, if they are damaged.
    """
    try:
        arrays = {
            name.removesuffix(".npy"): np.load(io.BytesIO(data)) for name, data in raw.items() if name.endswith(".npy")
        }
        return Sample(json.loads(raw["json"]), arrays)
    except (ValueError, KeyError, EOFError) as error:
        raise _damaged(Path(raw["__url__"]), error) from error


class ShardStream:
    """The endless sequence of a run's samples, read ahead."""

    def __init__(self, shards: Sequence[Shard], seed: int, batch_size: int, buffer_shards: int) -> None:
        self._shards = [shard for shard in shards if len(shard)]
        self._seed = seed
        self._batch_size = batch_size
        self._buffer_shards = buffer_shards
        self._epoch_size = sum(len(shard) for shard in self._shards)
        self._reader: _Reader | None = None

    def __len__(self) -> int:
        """Samples in an epoch."""
        return self._epoch_size

    def batch(self, step: int) -> list[RawSample]:
        """The samples of one step; steps that follow one another are read ahead.

        Raises:
            Mv3dError: naming the shard, if one is damaged.
        """
        if self._reader is None or step not in (self._reader.step, self._reader.step + 1):
            if self._reader is not None:
                self._reader.stop()
            self._reader = _Reader(self._batches(step), step)
        return self._reader.get(step)

    def samples(self, step: int, part: MicroBatch) -> list[Sample]:
        """The samples of a part of a step, as `batch`."""
        return [decoded(raw) for raw in self.batch(step)[part.slice]]

    def object_ids(self, step: int) -> list[str]:
        """Which objects the samples of a step show; nothing is read for it."""
        ids = []
        for n in range(step * self._batch_size, (step + 1) * self._batch_size):
            epoch, place = divmod(n, self._epoch_size)
            for group, order in self._groups(epoch):
                if place < len(order):
                    ids.append([name for shard in group for name in shard.object_ids][order[place]])
                    break
                place -= len(order)
        return ids

    def close(self) -> None:
        """Stop reading ahead."""
        if self._reader is not None:
            self._reader.stop()
            self._reader = None

    def _groups(self, epoch: int) -> Iterator[tuple[list[Shard], np.ndarray]]:
        """The epoch's groups of shards, and the order of each group's samples."""
        mixed = np.random.default_rng([self._seed, epoch]).permutation(len(self._shards))
        for k in range(0, len(mixed), self._buffer_shards):
            group = [self._shards[i] for i in mixed[k : k + self._buffer_shards]]
            order = np.random.default_rng([self._seed, epoch, k]).permutation(sum(len(shard) for shard in group))
            yield group, order

    def _batches(self, step: int) -> Iterator[list[RawSample]]:
        epoch, skipped = divmod(step * self._batch_size, self._epoch_size)
        batch: list[RawSample] = []
        while True:
            for group, order in self._groups(epoch):
                if skipped >= len(order):
                    skipped -= len(order)
                    continue
                samples = [raw for shard in group for raw in _read(shard)]
                for place in order[skipped:]:
                    batch.append(samples[place])
                    if len(batch) == self._batch_size:
                        yield batch
                        batch = []
                skipped = 0
            epoch += 1


class _Reader:
    """Reads batches ahead in a thread of its own."""

    def __init__(self, batches: Iterator[list[RawSample]], step: int) -> None:
        self.step = step
        self._current: list[RawSample] | None = None
        self._batches = batches
        self._thread = ThreadPoolExecutor(1)
        self._coming = deque(self._thread.submit(next, batches) for _ in range(_PREFETCHED_BATCHES))

    def get(self, step: int) -> list[RawSample]:
        """The batch of the current step, or of the next one."""
        if self._current is None or step != self.step:
            self._current = self._coming[0].result()  # one that failed stays, for whoever asks again
            self._coming.popleft()
            self._coming.append(self._thread.submit(next, self._batches))
            self.step = step
        return self._current

    def stop(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)


def _listed(path: Path) -> Shard:
    try:
        listing = read_json(path.with_suffix(".json"))
        facts = (listing["bytes"], listing["sha256"], tuple(listing["object_ids"]), dict(listing["left_out"]))
        return Shard(path, *facts)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(path, error) from error


def _read(shard: Shard) -> list[RawSample]:
    try:
        data = shard.path.read_bytes()
        if len(data) != shard.bytes:
            raise ValueError(f"{len(data)} bytes instead of {shard.bytes}")
        if hashlib.sha256(data).hexdigest() != shard.sha256:
            raise ValueError("its bytes were changed")
        samples = list(group_by_keys(tar_file_expander([{"url": str(shard.path), "stream": io.BytesIO(data)}])))
    except (OSError, ValueError, tarfile.TarError) as error:
        raise _damaged(shard.path, error) from error
    if len(samples) != len(shard):
        raise _damaged(shard.path, f"{len(samples)} samples instead of {len(shard)}")
    return samples


def _shard_paths(folder: Path) -> list[Path]:
    """In order; what is only called alike (``000001-backup.tar``) is none."""
    return sorted(path for path in folder.glob("*.tar") if _NAME.fullmatch(path.name))


def _key_of(listing: Path) -> str | None:
    try:
        return read_json(listing)["key"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _damaged(path: Path, reason: object) -> Mv3dError:
    return Mv3dError(
        f"{path} is damaged ({reason}); delete it and run the same command again: its orbits are encoded anew"
    )


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()
