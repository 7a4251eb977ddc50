"""WebDataset shards of encoded orbits: written once, streamed in an order that depends on seed and epoch alone.

A shard is a tar of samples (``<key>.json`` and some ``<key>.<name>.npy``) beside a small JSON that lists their
objects; either is whole or absent. Which sample is the n-th of a run is a function of (seed, n), whatever the number of
processes and wherever a run goes on: shards before that place are not opened. Each epoch mixes the shards, and the
samples of a few shards at a time (a few are held in memory, so that shards are read from front to back).
"""

from __future__ import annotations

import io
import json
import queue
import tarfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import webdataset as wds

from mv3d.errors import Mv3dError
from mv3d.files import whole_file

RawSample = dict[str, Any]
_PREFETCHED_BATCHES = 2


@dataclass(frozen=True)
class Sample:
    """One encoded orbit: facts, and half-precision arrays by name."""

    facts: dict[str, Any]
    arrays: dict[str, np.ndarray]


@dataclass(frozen=True)
class Shard:
    """A shard and what its list says of it."""

    path: Path
    bytes: int
    object_ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.object_ids)


def shard_path(folder: Path, number: int) -> Path:
    """Where a shard is."""
    return folder / f"{number:06d}.tar"


def write_shard(path: Path, samples: Iterator[Sample]) -> None:
    """Write a shard, then its list; nothing happens if both are there already."""
    listing = path.with_suffix(".json")
    if path.is_file() and listing.is_file():
        return
    ids = []
    with whole_file(path) as partial, wds.TarWriter(str(partial), mtime=0) as tar:
        for k, sample in enumerate(samples):
            ids.append(sample.facts["object_id"])
            arrays = {f"{name}.npy": _npy(array) for name, array in sample.arrays.items()}
            tar.write({"__key__": f"{path.stem}-{k:05d}", "json": json.dumps(sample.facts).encode(), **arrays})
    with whole_file(listing) as partial:
        partial.write_text(json.dumps({"bytes": path.stat().st_size, "object_ids": ids}))


def list_shards(folder: Path) -> tuple[Shard, ...]:
    """All shards of a folder, in order.

    Raises:
        Mv3dError: if there is none, or a list is damaged.
    """
    shards = []
    for path in sorted(folder.glob("*.tar")):
        try:
            listing = json.loads(path.with_suffix(".json").read_text())
            shards.append(Shard(path, listing["bytes"], tuple(listing["object_ids"])))
        except (OSError, ValueError, KeyError) as error:
            raise _damaged(path, error) from error
    if not any(len(shard) for shard in shards):
        raise Mv3dError(f"{folder} holds no encoded orbit")
    return tuple(shards)


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
    """The endless sequence of a run's samples."""

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
            self._reader = _Reader(lambda: self._batches(step), step)
        return self._reader.get(step)

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

    def __init__(self, make: Callable[[], Iterator[list[RawSample]]], step: int) -> None:
        self.step = step
        self._current: list[RawSample] | None = None
        self._queue: queue.Queue[list[RawSample] | Exception] = queue.Queue(_PREFETCHED_BATCHES)
        self._stopped = threading.Event()
        threading.Thread(target=self._read, args=(make,), daemon=True).start()

    def get(self, step: int) -> list[RawSample]:
        """The batch of the current step, or of the next one."""
        if self._current is None or step != self.step:
            got = self._queue.get()
            if isinstance(got, Exception):
                self._queue.put(got)  # whoever asks again gets the same answer
                raise got
            self.step, self._current = step, got
        return self._current

    def stop(self) -> None:
        self._stopped.set()
        while not self._queue.empty():  # lets a waiting thread see the event
            self._queue.get_nowait()

    def _read(self, make: Callable[[], Iterator[list[RawSample]]]) -> None:
        try:
            for batch in make():
                while not self._stopped.is_set():
                    try:
                        self._queue.put(batch, timeout=0.2)
                        break
                    except queue.Full:
                        continue
                if self._stopped.is_set():
                    return
        except Exception as error:  # noqa: BLE001 (raised again where the batch is asked for)
            self._queue.put(error)


def _read(shard: Shard) -> list[RawSample]:
    try:
        found = shard.path.stat().st_size
        if found != shard.bytes:
            raise ValueError(f"{found} bytes instead of {shard.bytes}")
        # Opened here, not by wds.WebDataset, which leaves closing to the garbage collector.
        with shard.path.open("rb") as stream:
            files = wds.tariterators.tar_file_expander([{"url": str(shard.path), "stream": stream}])
            samples = list(wds.tariterators.group_by_keys(files))
    except (OSError, ValueError, tarfile.TarError) as error:
        raise _damaged(shard.path, error) from error
    if len(samples) != len(shard):
        raise _damaged(shard.path, f"{len(samples)} samples instead of {len(shard)}")
    return samples


def _damaged(path: Path, reason: object) -> Mv3dError:
    return Mv3dError(
        f"{path} is damaged ({reason}); delete it and run the same command again: its orbits are encoded anew"
    )


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()
