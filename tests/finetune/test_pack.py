"""Packing: orbits bit for bit and cameras whole, made anew when they change, and without those that cannot be used."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mv3d.cameras import Camera
from mv3d.dataset import list_orbits
from mv3d.errors import Mv3dError
from mv3d.orbit import Orbit, load_orbit, save_orbit
from mv3d.pack import open_pack, pack_orbits
from mv3d.pixels import to_uint8
from render.camera_paths import MOTIONS


@pytest.fixture
def orbits(rendered: Path, tmp_path: Path) -> Path:
    """The toy orbits, to be changed."""
    return Path(shutil.copytree(rendered, tmp_path / "orbits"))


def change(folder: Path, make) -> None:
    save_orbit(make(load_orbit(folder)), folder, overwrite=True, for_people=False)


def test_pack_holds_the_orbits_bit_for_bit(rendered: Path, tmp_path: Path):
    pack = pack_orbits([rendered], tmp_path / "pack", 32)
    assert [entry.object_id for entry in pack.entries] == [f"toy/ball-{k}" for k in range(4)]
    for entry, frames in zip(pack.entries, pack.frames, strict=True):
        assert np.array_equal(frames, to_uint8(load_orbit(Path(entry.orbit)).frames))
    assert pack.indices("val") == [3]
    assert pack.left_out == {}


def test_a_folder_of_a_job_arrays_shards_is_one_set(rendered: Path, tmp_path: Path):
    whole = [line for line in (rendered / "manifest.jsonl").read_text().splitlines() if line]
    for k in range(2):
        (tmp_path / f"manifest-{k}-of-2.jsonl").write_text("\n".join(whole[k::2]) + "\n")
    (tmp_path / "toy").symlink_to(rendered / "toy")
    one, both = ({(e.object_id, e.split) for e in list_orbits([folder]).orbits} for folder in (rendered, tmp_path))
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


def test_cameras_of_an_orbit_are_bit_for_bit_those_of_its_angles(rendered: Path, tmp_path: Path):
    """As packs kept them that knew angles alone: a model trained on is trained on with the same numbers."""
    pack = pack_orbits([rendered], tmp_path / "pack", 16)
    for orbit, start in ((0, 0), (1, 2), (2, 3)):
        rows = np.roll([(c.azimuth_deg, c.elevation_deg, c.radius) for c in pack.cameras(orbit)], -start, axis=0)
        for camera, (azimuth_deg, elevation_deg, radius) in zip(pack.cameras_from(orbit, start), rows, strict=True):
            old = Camera.looking_at_origin(azimuth_deg - rows[0, 0], elevation_deg, radius, size_px=16)
            assert np.array_equal(camera.world_from_cam, old.world_from_cam)
            assert (camera.focal_px, camera.cx_px, camera.cy_px) == (old.focal_px, old.cx_px, old.cy_px)


def test_lens_pan_zoom_and_principal_point_are_kept(orbits: Path, tmp_path: Path):
    def moving(orbit: Orbit) -> Orbit:
        first = replace(orbit.cameras[0], focal_px=30.0, cx_px=14.0, cy_px=20.0)
        cameras = [MOTIONS[name].moved(first, 1.0) for name in ("still", "pan-left", "zoom-in", "orbit-right")]
        return replace(orbit, cameras=tuple(cameras))

    change(orbits / "toy/ball-0/0", moving)
    pack = pack_orbits([orbits], tmp_path / "pack", 16)
    still, panned, zoomed, turned = pack.cameras_from(0, 0)
    assert (still.focal_px, still.cx_px, still.cy_px, still.width_px) == (15.0, 7.0, 10.0, 16)
    np.testing.assert_allclose(panned.world_from_cam, still.panned(10).world_from_cam, atol=1e-12)
    assert zoomed.focal_px == pytest.approx(1.5 * 15)
    assert turned.azimuth_deg == pytest.approx(60)
    assert turned.cx_px == 7.0
    # Begun at the panned view, which does not look at the origin, all are turned alike: none at this azimuth.
    for begun, camera in zip(pack.cameras_from(0, 3), (turned, still, panned, zoomed), strict=True):
        np.testing.assert_allclose(begun.turned(60).world_from_cam, camera.world_from_cam, atol=1e-12)


def test_a_pack_is_made_anew_when_what_it_was_made_of_changed(orbits: Path, tmp_path: Path):
    def packed() -> tuple[list[str], int]:
        pack = pack_orbits([orbits], tmp_path / "pack", 32)
        return [f"{entry.object_id} {entry.split}" for entry in pack.entries], int(pack.frames[0].sum())

    names, pixels = packed()
    made = (tmp_path / "pack/frames.bin").stat().st_mtime_ns
    assert packed() == (names, pixels)
    assert (tmp_path / "pack/frames.bin").stat().st_mtime_ns == made
    # Other pixels in an orbit.
    change(orbits / "toy/ball-0/0", lambda orbit: replace(orbit, frames=orbit.frames[..., [1, 2, 0, 3]] * 0.5))
    assert packed()[1] != pixels
    # A new object, another side.
    shutil.copytree(orbits / "toy/ball-1", orbits / "toy/ball-9")
    with (orbits / "manifest.jsonl").open("a") as file:
        file.write(json.dumps({"object_id": "toy/ball-9", "orbits": 1, "split": "train"}) + "\n")
        file.write(json.dumps({"object_id": "toy/ball-1", "orbits": 1, "split": "val"}) + "\n")
    assert packed()[0] == [
        "toy/ball-0 train",
        "toy/ball-1 val",
        "toy/ball-2 train",
        "toy/ball-3 val",
        "toy/ball-9 train",
    ]
    # Another size, and other data.
    assert pack_orbits([orbits], tmp_path / "pack", 16).frames.shape[2] == 16
    other = shutil.copytree(orbits, tmp_path / "other")
    assert pack_orbits([other], tmp_path / "pack", 16).entries[0].orbit.startswith(str(other))


@pytest.mark.parametrize("name", ["frames.bin", "depth.bin", "cameras.npz", "index.json"])
@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: data[:-9] + bytes(9), lambda data: b""])
def test_a_damaged_pack_is_never_opened_and_made_again(rendered: Path, tmp_path: Path, name: str, damage):
    before = pack_orbits([rendered], tmp_path / "pack", 32)
    frames, depth = before.frames.copy(), before.depth.copy()
    path = tmp_path / "pack" / name
    path.write_bytes(damage(path.read_bytes().replace(bytes(9), b"\1" * 9)))
    with pytest.raises(Mv3dError, match=r"pack is no whole pack .* run the same command again: it is packed anew"):
        open_pack(tmp_path / "pack")
    after = pack_orbits([rendered], tmp_path / "pack", 32)
    assert np.array_equal(after.frames, frames)
    assert np.array_equal(after.depth, depth)


def test_a_copied_pack_is_not_made_again(rendered: Path, tmp_path: Path):
    pack_orbits([rendered], tmp_path / "pack", 32)
    shutil.copytree(tmp_path / "pack", tmp_path / "copy", copy_function=shutil.copyfile)
    os.utime(tmp_path / "copy/frames.bin", ns=(1, 1))
    assert pack_orbits([rendered], tmp_path / "copy", 32).frames.shape == (4, 4, 32, 32, 4)
    assert (tmp_path / "copy/frames.bin").stat().st_mtime_ns == 1


def test_an_orbit_that_cannot_be_used_is_left_out_until_it_can(orbits: Path, tmp_path: Path):
    frame = orbits / "toy/ball-1/0/frames/002.png"
    good = frame.read_bytes()
    frame.write_bytes(good[:40])
    change(orbits / "toy/ball-0/0", lambda orbit: orbit.select([0, 1]))
    pack = pack_orbits([orbits], tmp_path / "pack", 32)
    assert [entry.object_id for entry in pack.entries] == ["toy/ball-2", "toy/ball-3"]
    assert len(pack.frames) == 2
    reasons = {Path(orbit).parent.name: reason for orbit, reason in pack.left_out.items()}
    assert "002.png is no readable picture" in reasons["ball-1"]
    assert "has 2 views, most have 4" in reasons["ball-0"]
    frame.write_bytes(good)
    assert len(pack_orbits([orbits], tmp_path / "pack", 32).entries) == 3


@pytest.mark.parametrize("name", ["transforms.json", "frames/002.png", "depth/001.png"])
def test_a_pipe_is_left_out_instead_of_waited_for(orbits: Path, tmp_path: Path, name: str):
    path = orbits / "toy/ball-1/0" / name
    path.unlink()
    os.mkfifo(path)
    pack = pack_orbits([orbits], tmp_path / "pack", 32)
    assert len(pack.entries) == 3
    (reason,) = pack.left_out.values()
    assert reason.startswith(f"{path} is a pipe or a device")


@pytest.mark.parametrize("spoil", [os.mkfifo, lambda path: path.write_text("[" * 100_000)])
def test_an_index_that_cannot_be_read_is_made_again(rendered: Path, tmp_path: Path, spoil):
    pack_orbits([rendered], tmp_path / "pack", 32)
    (tmp_path / "pack/index.json").unlink()
    spoil(tmp_path / "pack/index.json")
    with pytest.raises(Mv3dError, match="is no whole pack"):
        open_pack(tmp_path / "pack")
    assert len(pack_orbits([rendered], tmp_path / "pack", 32).entries) == 4


def test_a_collection_of_which_nothing_can_be_used_is_a_mistake(orbits: Path, rendered: Path, tmp_path: Path):
    for path in orbits.glob("toy/*/0"):
        change(path, lambda orbit: orbit.resized(16))
    with pytest.raises(
        Mv3dError, match=r"orbits: none of its 4 orbits can be used; .* is of 16 px: render .* --size 32"
    ):
        pack_orbits([rendered, orbits], tmp_path / "pack", 32)
    assert not (tmp_path / "pack").exists()


def test_a_full_disk_is_one_line_and_leaves_nothing(rendered: Path, tmp_path: Path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[0][1]))  # writing further fails as on a full disk
    try:
        with pytest.raises(Mv3dError, match=r"pack cannot be written: .*; free space and run the same command again"):
            pack_orbits([rendered], tmp_path / "pack", 32)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before[0])
        signal.signal(signal.SIGXFSZ, before[1])
    assert list(tmp_path.iterdir()) == []
