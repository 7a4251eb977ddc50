"""On a real Ray cluster of several nodes on this machine."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from mv3d.orbit import load_orbit
from render.farm.job import RenderJob, render_job
from render.settings import Settings
from render.sources import find_objects

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

OBJECTS = 12


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("ray", reason="needs Ray: the extra `ray`")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    )
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # Ray's workers give way to everything else by default
    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    yield started
    import ray

    ray.shutdown()
    started.shutdown()


def slow_job(job: RenderJob):
    """One that is under way long enough to be interrupted; the broken one kills its process."""
    if job.item.name == "deadly":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.5)
    return render_job(job)


def test_a_killed_node_costs_no_object_and_doubles_none(cluster, meshes: Path, tmp_path: Path, cube_obj) -> None:
    from render.farm.cluster import RayCluster

    for k in range(OBJECTS):
        (meshes / f"more-{k:02d}.obj").write_text(cube_obj((1, 1, 1 + k)))
    (meshes / "deadly.obj").write_text(cube_obj((1, 2, 1)))
    (meshes / "broken.glb").write_bytes(b"glTF, or so it says")
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    cluster.wait_for_nodes()
    settings = Settings(num_views=2, size_px=16)
    jobs = [RenderJob(item, 0, tmp_path / "out" / item.object_id, settings) for item in find_objects(meshes)]
    results = {}
    with RayCluster(slow_job, cluster.address, timeout_s=600) as ray_cluster:
        for job, result in ray_cluster.run(jobs):
            assert job.item.object_id not in results
            results[job.item.object_id] = result
            if len(results) == 3:
                cluster.remove_node(nodes[0], allow_graceful=False)
    assert results.keys() == {job.item.object_id for job in jobs}
    failed = {name: getattr(result, "reason", None) for name, result in results.items()}
    assert "crashed 3 times" in failed.pop("deadly")
    assert failed.pop("broken")
    assert set(failed.values()) == {None}
    for job in jobs:
        if job.item.object_id in failed:
            render_job(RenderJob(job.item, 0, tmp_path / "alone" / job.item.object_id, settings))
            again = load_orbit(tmp_path / "alone" / job.item.object_id)
            np.testing.assert_array_equal(load_orbit(job.folder).frames, again.frames)
    assert not list((tmp_path / "out").rglob(".partial-*"))


def test_the_command_line_renders_on_a_cluster(cluster, meshes: Path, tmp_path: Path) -> None:
    from render.__main__ import main

    cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    small = ("--num-views", "2", "--size", "16", "--ray", cluster.address)
    assert main(["orbits", str(meshes), "--out", str(tmp_path / "out"), *small]) == 0
    (line,) = (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()
    assert json.loads(line)["orbits"] == 1
    assert len(load_orbit(tmp_path / "out" / "cube" / "0")) == 2


def test_a_cluster_that_is_not_there_is_told_in_one_line(meshes: Path, tmp_path: Path, capsys) -> None:
    pytest.importorskip("ray", reason="needs Ray: the extra `ray`")
    from render.__main__ import main

    assert main(["orbits", str(meshes), "--out", str(tmp_path / "out"), "--ray", "127.0.0.1:1"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("render: there is no Ray cluster at 127.0.0.1:1")
