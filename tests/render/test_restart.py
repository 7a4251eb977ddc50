from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mv3d.dataset import read_manifest

OBJECTS = 10


def pixels_of(out: Path) -> dict[str, str]:
    """A digest of every picture."""
    found = sorted(out.rglob("*.png"))
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


@pytest.mark.slow
def test_a_run_killed_at_any_moment_ends_with_the_same_pixels(meshes: Path, tmp_path: Path, cube_obj) -> None:
    for k in range(OBJECTS):
        (meshes / f"more-{k}.obj").write_text(cube_obj((1, 1, 1 + k)))
    (meshes / "broken.glb").write_bytes(b"glTF, or so it says")

    def start(out: Path, workers: int) -> subprocess.Popen:
        more = ["--num-views", "12", "--size", "48", "--workers", str(workers), "--passes", "depth"]
        command = [sys.executable, "-m", "render", "orbits", str(meshes), "--out", str(out), *more]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    assert start(tmp_path / "undisturbed", 1).wait(300) == 0
    disturbed = tmp_path / "disturbed"
    process = start(disturbed, 2)
    wanted = random.randrange(1, OBJECTS)
    while process.poll() is None and len(list(disturbed.glob("*/0/transforms.json"))) < wanted:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(60)
    assert start(disturbed, 2).wait(300) == 0
    assert pixels_of(disturbed) == pixels_of(tmp_path / "undisturbed")
    assert len(pixels_of(disturbed)) == 2 * 12 * (OBJECTS + 1)
    listed = {entry.object_id: (entry.orbits, bool(entry.failed)) for entry in read_manifest(disturbed).values()}
    assert listed.pop("broken") == (0, True)
    assert set(listed.values()) == {(1, False)}
    assert len(listed) == OBJECTS + 1
    assert not list(disturbed.rglob(".partial-*"))
