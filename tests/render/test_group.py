"""Scenes of several objects: all of them there, none inside another, and none of them leaking out of the test split."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mv3d.orbit import load_orbit
from render.__main__ import main
from render.farm.split import identify, side_of, split_of
from render.scene.scene import make_scene
from render.sources import find_objects
from render.sources.group import grouped


@pytest.fixture
def boxes(meshes, cube_obj):
    """Twelve boxes of different shapes, some of which are to be held out."""
    for k in range(11):
        (meshes / f"box-{k}.obj").write_text(cube_obj((1, 0.3 + 0.1 * k, 0.5 + 0.07 * k)))
    return meshes


def sides(objects):
    scenes = [make_scene(item.load(), linear_colours=item.linear_colours) for item in objects]
    return [split_of(identify(item, scene)) for item, scene in zip(objects, scenes, strict=True)]


def test_every_object_stands_in_one_scene_on_the_floor_and_in_no_other(boxes):
    objects = find_objects(boxes)
    groups = grouped(objects, 4, seed=0)
    assert sorted(part.object_id for group in groups for part in group.parts) == sorted(o.object_id for o in objects)
    assert [group.parts for group in grouped(objects, 4, seed=0)] == [group.parts for group in groups]
    loaded = groups[0].load()
    assert len(make_scene(loaded, linear_colours=False).corners) == 4 * 12
    meshes = loaded.dump()
    triples = [meshes[k : k + len(meshes) // 4] for k in range(0, len(meshes), len(meshes) // 4)]
    bounds = [(np.min([m.bounds[0] for m in part], 0), np.max([m.bounds[1] for m in part], 0)) for part in triples]
    for k, (low, high) in enumerate(bounds):
        assert low[2] == pytest.approx(0, abs=1e-9)
        assert all((low[:2] > other[1][:2]).any() or (high[:2] < other[0][:2]).any() for other in bounds[:k])


def test_a_scene_with_a_held_out_object_is_held_out(boxes):
    objects = find_objects(boxes)
    by_id = dict(zip((o.object_id for o in objects), sides(objects), strict=True))
    assert {"train"} < set(by_id.values())
    for group in grouped(objects, 3, seed=1):
        parts = {by_id[part.object_id] for part in group.parts}
        expected = next(side for side in ("test", "val", "train") if side in parts)
        assert side_of(group, "0" * 16) == expected


def test_clips_of_scenes_are_rendered_like_any_orbit(boxes, tmp_path, capsys):
    arguments = ["orbits", str(boxes), "--out", str(tmp_path / "out"), "--group", "6", "--size", "16", "--workers", "1"]
    assert main([*arguments, "--path", "orbit-left", "--num-views", "3"]) == 0
    lines = [json.loads(line) for line in (tmp_path / "out/manifest.jsonl").read_text().splitlines()]
    assert [line["orbits"] for line in lines] == [1, 1]
    orbit = load_orbit(tmp_path / "out" / lines[0]["object_id"] / "0")
    assert [round(c.azimuth_deg) for c in orbit.cameras] == [0, 330, 300]
    assert (orbit.frames[..., 3] > 0.5).mean() > 0.05
    assert main([*arguments[:5], "1"]) == 2
    assert "scenes of 1: give 2 to the number of objects, which is 12 (--group)" in capsys.readouterr().err
