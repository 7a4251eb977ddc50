import pytest
import yaml

from eval.__main__ import main
from eval.protocol import PROTOCOLS_FOLDER, UNKNOWN, list_protocols, load_protocol
from mv3d.errors import Mv3dError

NAMES = ["eschernet30", "mv3d-test", "mvadapter6", "sv3d-dynamic", "sv3d-static", "svd50", "syncdreamer30"]


def test_all_protocols_are_there_and_each_setting_names_its_source():
    assert list_protocols() == NAMES
    for name in NAMES:
        for setting in load_protocol(name).settings.values():
            assert setting.source


def test_what_a_source_does_not_state_is_unknown_and_ours_is_said():
    svd = load_protocol("svd50")
    assert svd.settings["lpips"].stated is None
    assert svd.here.lpips == ["alex", "vgg"]
    assert svd.settings["lpips"].is_ours
    assert not svd.settings["num_views"].is_ours
    described = {row["setting"]: row for row in svd.described()}
    assert described["lpips"]["stated"] == UNKNOWN
    assert described["num_views"] == {
        "setting": "num_views",
        "stated": 21,
        "here": 21,
        "source": svd.settings["num_views"].source,
    }


@pytest.mark.parametrize(
    ("name", "method", "key", "value"),
    [
        ("svd50", "Zero123", "psnr", 14.87),
        ("sv3d-static", "Zero123", "psnr", 17.29),
        ("eschernet30", "Zero123", "psnr", 18.51),
        ("syncdreamer30", "Zero123", "psnr", 18.93),
        ("sv3d-dynamic", "SV3D_p", "lpips", 0.09),
        ("mvadapter6", "MV-Adapter SDXL", "psnr", 22.13),
    ],
)
def test_published_rows_stay_with_their_protocol(name, method, key, value):
    rows = [row for row in load_protocol(name).published if row.method == method and key in row.values]
    assert [row.values[key] for row in rows] == [value]


def test_fingerprints_tell_settings_apart(tmp_path):
    prints = {load_protocol(name).fingerprint() for name in NAMES}
    assert len(prints) == len(NAMES)
    tree = yaml.safe_load((PROTOCOLS_FOLDER / "mv3d-test.yaml").read_text())
    path = tmp_path / "mv3d-test.yaml"
    path.write_text(yaml.safe_dump(tree))
    assert load_protocol(str(path)).fingerprint() == load_protocol("mv3d-test").fingerprint()
    tree["settings"]["resolution_px"]["stated"] = 576
    path.write_text(yaml.safe_dump(tree))
    assert load_protocol(str(path)).fingerprint() != load_protocol("mv3d-test").fingerprint()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("ssim"), "missing ssim"),
        (lambda s: s.update(sssim=s.pop("ssim")), "did you mean 'ssim'"),
        (lambda s: s["ssim"].update(stated="unknown"), "'here' must say"),
        (lambda s: s["ssim"].update(stated="boxy"), "ssim: 'boxy': Input should be 'gaussian' or 'uniform'"),
        (lambda s: s["num_views"].update(stated="many"), "num_views: 'many': Input should be a valid integer"),
        (lambda s: s["scored_views"].update(stated=[21]), "indices below num_views 21"),
        (lambda s: s["azimuths_deg"].update(stated=[0, 90]), "2 azimuths_deg for 21 views"),
        (lambda s: s["azimuths_deg"].update(stated=[0] * 21) or s["path"].update(stated="random"), "static path only"),
        (lambda s: s["lpips"].pop("source"), "missing source"),
    ],
)
def test_a_wrong_protocol_is_one_line(tmp_path, change, message):
    tree = yaml.safe_load((PROTOCOLS_FOLDER / "mv3d-test.yaml").read_text())
    change(tree["settings"])
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(tree))
    with pytest.raises(Mv3dError, match=message):
        load_protocol(str(path))


def test_an_unknown_name_gets_a_suggestion():
    with pytest.raises(Mv3dError, match="did you mean svd50"):
        load_protocol("svd5")


def test_the_verb_lists_them(capsys):
    assert main(["protocols"]) == 0
    printed = capsys.readouterr().out
    assert all(f"{name}: " in printed for name in NAMES)
    assert "published rows" in printed
