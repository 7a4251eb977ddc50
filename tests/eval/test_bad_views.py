"""What python -m eval score says of views that cannot be scored, or that fit better in another order."""

import shutil
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval.__main__ import main
from eval.scoring.results import load_result
from mv3d.orbit import Orbit, save_orbit
from mv3d.pixels import to_uint8
from tests.eval.bad_pictures import put_animated, put_cmyk


@pytest.fixture(autouse=True)
def _no_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("MV3D_CACHE", str(tmp_path / "no weights"))


def _save_plain(orbit: Orbit, folder: Path) -> None:
    folder.mkdir(parents=True)
    for k, frame in enumerate(orbit.frames):
        Image.fromarray(to_uint8(frame)).save(folder / f"{k:03d}.png")


def _with_alpha(folder: Path, change) -> None:
    for path in sorted(folder.glob("*.png")):
        pixels = np.asarray(Image.open(path)).copy()
        pixels[..., 3] = change(pixels[..., 3])
        Image.fromarray(pixels).save(path)


def _deep_rgb(path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 32, 32, 16, 2, 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + bytes(32 * 6) for _ in range(32)))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))


def _enlarged(folder: Path) -> None:
    for path in folder.glob("*.png"):
        Image.open(path).resize((64, 64)).save(path)


BAD = {
    "another count": (lambda f: (f / "004.png").unlink(), "4 predicted views and 5 true ones; predict as many"),
    "another size": (_enlarged, "predicted views have 64x64 px, true ones 32x32; write both at one size"),
    "one of another size": (
        lambda f: Image.new("RGBA", (16, 16)).save(f / "002.png"),
        "differ in size: 16x16 and 32x32",
    ),
    "a missing frame": (lambda f: (f / "002.png").unlink(), "has no view 2"),
    "16 bits": (
        lambda f: Image.fromarray(np.full((32, 32), 40_000, dtype=np.uint16)).save(f / "002.png"),
        "16 bits a channel",
    ),
    "16 bits RGB": (lambda f: _deep_rgb(f / "002.png"), "16 bits a channel"),
    "CMYK": (put_cmyk, "of mode CMYK"),
    "animated": (put_animated, "is animated (2 frames)"),
    "broken": (lambda f: (f / "002.png").write_bytes(b"\x89PNG\r\n\x1a\n broken"), "no readable picture"),
    "empty mask": (lambda f: _with_alpha(f, lambda a: a * 0), "predicted view 0 is transparent everywhere"),
    "inverted mask": (lambda f: _with_alpha(f, lambda a: 255 - a), "the predicted alpha is inverted"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_views_are_one_line_code_2_and_nothing_written(make_orbit, tmp_path, capsys, case):
    spoil, message = BAD[case]
    save_orbit(make_orbit(0), tmp_path / "truth", for_people=False)
    _save_plain(make_orbit(0), tmp_path / "pred")
    spoil(tmp_path / "pred")
    words = ["score", str(tmp_path / "pred"), str(tmp_path / "truth"), "--out", str(tmp_path / "out")]
    assert main(words) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("eval: ")
    assert message in line
    assert not (tmp_path / "out").exists()


def test_bad_objects_are_named_and_the_rest_is_scored(make_orbit, tmp_path, capsys):
    for name in ("good", *BAD):
        save_orbit(make_orbit(0), tmp_path / "truth" / name, for_people=False)
        _save_plain(make_orbit(0), tmp_path / "pred" / name)
        if name in BAD:
            BAD[name][0](tmp_path / "pred" / name)
    words = ["score", str(tmp_path / "pred"), str(tmp_path / "truth"), "--out", str(tmp_path / "out")]
    assert main(words) == 0
    result = load_result(tmp_path / "out")
    assert list(result.objects) == ["good"]
    assert result.left_out.keys() == BAD.keys()
    printed = capsys.readouterr().out
    for name, (_, message) in BAD.items():
        assert message in result.left_out[name]
        assert f"left out: {name}: " in printed


def test_a_broken_strip_does_not_stop_the_others(make_orbit, tmp_path):
    (tmp_path / "pred").mkdir()
    for seed, name in enumerate(("a", "b")):
        orbit = make_orbit(seed)
        save_orbit(orbit, tmp_path / "truth" / name, for_people=False)
        strip = np.concatenate(list(to_uint8(orbit.frames)), axis=1)
        Image.fromarray(strip).save(tmp_path / "pred" / f"{name}.png")
    (tmp_path / "pred/b.png").write_bytes(b"broken")
    words = ["score", str(tmp_path / "pred"), str(tmp_path / "truth"), "--out", str(tmp_path / "out")]
    assert main(words) == 0
    result = load_result(tmp_path / "out")
    assert list(result.objects) == ["a"]
    assert "b.png is no readable picture" in result.left_out["b"]


def test_shifted_cameras_are_refused_where_the_files_tell_them(make_orbit, tmp_path, capsys):
    orbit = make_orbit(0)
    save_orbit(orbit, tmp_path / "truth", for_people=False)
    save_orbit(replace(orbit, cameras=orbit.cameras[1:] + orbit.cameras[:1]), tmp_path / "pred", for_people=False)
    assert main(["score", str(tmp_path / "pred"), str(tmp_path / "truth")]) == 2
    assert "view 0 has azimuth 72.0 predicted, 0.0 true; predict the truth's cameras" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: f[[4, 0, 1, 2, 3]], "shifted by -1 view"),
        (lambda f: f[[0, 3, 2, 1, 4]], "in another order (1→3, 3→1)"),
        (lambda f: f[:, :, ::-1], "mirrored left to right"),
        (lambda f: f[[0, 4, 3, 2, 1]], "the other way round"),
    ],
    ids=["off by one", "swapped", "mirrored", "other turn"],
)
def test_another_order_or_a_mirror_is_warned_about_in_report_and_page(make_orbit, tmp_path, capsys, change, said):
    for seed in range(3):
        orbit = make_orbit(seed)
        save_orbit(orbit, tmp_path / "truth" / str(seed), for_people=False)
        _save_plain(replace(orbit, frames=change(orbit.frames)), tmp_path / "pred" / f"{seed}")
    words = ["score", str(tmp_path / "pred"), str(tmp_path / "truth"), "--out", str(tmp_path / "out")]
    assert main(words) == 0
    (warning,) = load_result(tmp_path / "out").warnings
    assert said in warning
    assert f"**Warning:** {warning}" in capsys.readouterr().out
    assert '<p class="warning">' in (tmp_path / "out/report.html").read_text()
    shutil.rmtree(tmp_path / "pred")
    for seed in range(3):
        _save_plain(make_orbit(seed), tmp_path / "pred" / f"{seed}")
    assert main([*words, "--overwrite"]) == 0
    assert load_result(tmp_path / "out").warnings == []
