from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from imageio_ffmpeg import count_frames_and_secs
from PIL import Image

from finetune.data import OrbitFrames
from finetune.pictures import save_rows_video, to_tensor
from finetune.validation import score_sampled
from mv3d.cameras import static_orbit
from mv3d.model.sampling import guidance_per_frame


def test_the_input_view_is_not_scored(monkeypatch, tmp_path):
    truth = torch.rand(5, 4, 16, 16)
    model = SimpleNamespace(device="cpu", facts=SimpleNamespace(resolution_px=16))
    pasted, spoilt = truth.clone(), truth.clone()
    pasted[1:] = 0.5  # the picture itself, and nothing right besides
    spoilt[0] = 0.5  # everything but the picture
    scores = {}
    for name, output in (("pasted", pasted), ("spoilt", spoilt)):
        monkeypatch.setattr("finetune.validation.sample_clip", lambda *_, output=output: output)
        orbit = OrbitFrames(truth, static_orbit(5, 10, size_px=16))
        lpips = lambda a, b: (a - b).square().mean(dim=(1, 2, 3))  # noqa: E731
        scores[name] = score_sampled(model, [orbit], lpips, tmp_path / "sheet.jpg")
    assert scores["spoilt"]["psnr"] == pytest.approx(100)
    assert scores["spoilt"]["lpips"] == 0
    assert scores["pasted"]["psnr"] < 20


def test_own_pictures_are_drawn_below_what_is_scored_and_change_no_score(monkeypatch, tmp_path):
    asked = []

    def negative(model, picture, cameras, settings):
        """The model makes of a picture its negative, opaque."""
        asked.append((picture, cameras))
        return torch.cat([1 - picture[:3], torch.ones(1, 16, 16)]).expand(settings.num_views, -1, -1, -1)

    model = SimpleNamespace(device="cpu", facts=SimpleNamespace(resolution_px=16))
    monkeypatch.setattr("finetune.validation.sample_clip", negative)
    photograph = torch.cat([torch.full((3, 16, 16), 0.25), torch.ones(1, 16, 16)])
    orbit = OrbitFrames(torch.rand(5, 4, 16, 16), static_orbit(5, 30, size_px=16))
    lpips = lambda a, b: (a - b).square().mean(dim=(1, 2, 3))  # noqa: E731
    without = score_sampled(model, [orbit], lpips, tmp_path / "without.png")
    assert score_sampled(model, [orbit], lpips, tmp_path / "with.png", [photograph], 5) == without
    above, sheet = (to_tensor(np.asarray(Image.open(tmp_path / f"{name}.png"))) for name in ("without", "with"))
    assert sheet.shape == (3, 4 * 16, 3 * 16)
    assert torch.equal(sheet[:, :32], above)
    assert (sheet[:, 32:48] == 63 / 255).all()
    assert (sheet[:, 48:] == 191 / 255).all()
    picture, cameras = asked[-1]
    assert torch.equal(picture, photograph)
    assert [round(camera.azimuth_deg) for camera in cameras] == [0, 72, 144, 216, 288]
    assert {round(camera.elevation_deg) for camera in cameras} == {10}
    # They alone are drawn too, and nothing is known to score them by.
    assert score_sampled(model, [], None, tmp_path / "alone.png", [photograph], 5) == {}
    assert torch.equal(to_tensor(np.asarray(Image.open(tmp_path / "alone.png"))), sheet[:, 32:])
    assert count_frames_and_secs(str(tmp_path / "alone.mp4"))[0] == 5


def test_a_video_of_rows_has_a_frame_each_and_plays_while_it_loads(tmp_path):
    rows = [torch.rand(5, channels, 17, 17) for channels in (3, 4, 4)]
    save_rows_video([*rows, rows[0]], tmp_path / "sheets/rows.mp4", frames_per_second=5)
    assert count_frames_and_secs(str(tmp_path / "sheets/rows.mp4")) == (5, pytest.approx(1, abs=0.1))
    made = (tmp_path / "sheets/rows.mp4").read_bytes()
    assert made.index(b"moov") < made.index(b"mdat")  # the index stands first


def test_triangle_guidance_peaks_at_index_10_of_21():
    scales = guidance_per_frame("triangle", 1.0, 2.5, 21)
    assert scales.argmax() == 10
    torch.testing.assert_close(scales[[0, 1, 9, 10, 11, 20]], torch.tensor([1.0, 1.15, 2.35, 2.5, 2.35, 1.0]))
