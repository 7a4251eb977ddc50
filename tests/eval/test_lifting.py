"""How consistent views are without any truth."""

from dataclasses import replace

import numpy as np
import pytest

from eval.meshes.lifting import score_consistency, share_of_truth
from eval.truth.objects import list_objects, render_mesh
from mv3d.cameras import static_orbit
from mv3d.lift import LiftSettings, lift_orbit
from mv3d.orbit import Facts, Orbit
from mv3d.pixels import composite
from render.scene.raycast import render_orbit
from render.scene.scene import make_scene
from tests.render.conftest import make_cube_mtl, make_cube_obj


@pytest.fixture(scope="module")
def true_orbit(tmp_path_factory) -> Orbit:
    """A cuboid of six colours, 21 views of 48 px."""
    folder = tmp_path_factory.mktemp("objects")
    (folder / "cube.obj").write_text(make_cube_obj((1.0, 0.8, 0.5)))
    (folder / "cube.mtl").write_text(make_cube_mtl())
    (item,) = list_objects(folder, None, folder / "work")
    cameras = static_orbit(21, 15.0, size_px=48)
    scene = make_scene(item.load(), linear_colours=item.linear_colours)
    return Orbit(render_orbit(scene, cameras, None), cameras, Facts(input_index=0))


def _predicted_half(orbit: Orbit, change) -> Orbit:
    """Change the views that the others predict, and leave these."""
    frames = orbit.frames.copy()
    frames[1::2] = change(frames[1::2])
    return replace(orbit, frames=frames)


@pytest.mark.slow
def test_true_views_are_consistent(true_orbit):
    scores = score_consistency(true_orbit)
    assert scores["consistency_psnr_object"] > 15
    assert scores["consistency_iou"] > 0.9
    assert share_of_truth(scores, scores) == {"consistency_share": 1}


@pytest.mark.slow
def test_views_made_inconsistent_on_purpose_lose_more_the_more_they_are(true_orbit):
    truth = score_consistency(true_orbit)
    shares = []
    for step in (1, 3, 5):  # the predicted half shows the object turned by so many views
        turned = _predicted_half(true_orbit, lambda views, step=step: np.roll(views, step, axis=0))
        shares.append(share_of_truth(score_consistency(turned), truth)["consistency_share"])
    assert 1 > shares[0] > shares[1]
    assert max(shares) < 0.85
    mirrored = _predicted_half(true_orbit, lambda views: views[:, :, ::-1])
    assert share_of_truth(score_consistency(mirrored), truth)["consistency_share"] < 0.95


@pytest.mark.slow
def test_it_is_the_object_that_counts_and_in_one_direction(true_orbit):
    """Of 21 views the first, third, ... (11) are lifted, the other 10 predicted within their own silhouettes."""
    truth = score_consistency(true_orbit)
    seen = render_mesh(
        lift_orbit(true_orbit.select(range(0, 21, 2)), LiftSettings("hull", resolution=24)), true_orbit.cameras[1::2]
    )
    held_out = true_orbit.select(range(1, 21, 2))
    inside = held_out.frames[..., 3] >= 0.5
    errors = ((composite(seen) - held_out.on()) ** 2).mean(axis=-1)
    by_hand = np.mean([-10 * np.log10(error[where].mean()) for error, where in zip(errors, inside, strict=True)])
    assert truth["consistency_psnr_object"] == pytest.approx(by_hand, abs=1e-5)
    # Colours hidden behind full transparency are not looked at.
    hidden = true_orbit.frames.copy()
    hidden[hidden[..., 3] == 0] = (1, 0, 0, 0)
    assert score_consistency(replace(true_orbit, frames=hidden)) == pytest.approx(truth)


def test_few_views_have_no_consistency(true_orbit):
    assert score_consistency(true_orbit.select(range(5))) == {}
    assert share_of_truth({}, {"consistency_psnr_object": 20.0}) == {}
