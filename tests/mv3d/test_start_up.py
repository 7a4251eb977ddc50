"""What is loaded before the first picture is worked on: no more than it needs, and nothing twice."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

import mv3d
from mv3d.cli import main
from mv3d.errors import Mv3dError
from mv3d.model.finite import is_finite
from mv3d.model.staged import StagedModel, load_in_stages, whole_model
from mv3d.model.weights import weights_to_come
from mv3d.model_options import ModelOptions
from mv3d.orbit import load_orbit

OF_VIEWS = ("diffusers", "transformers", "peft", "accelerate", "torch._dynamo")
OF_MESHES = ("trimesh", "networkx")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with two cut-outs."""
    monkeypatch.chdir(tmp_path)
    for name in ("mug.png", "jug.png"):
        picture = Image.new("RGBA", (32, 32))
        picture.paste((0, 90, 0, 255), (8, 6, 24, 28))
        picture.save(name)
    return tmp_path


@pytest.fixture
def model_without_unet(tiny_model: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "halved"
    shutil.copytree(tiny_model, folder)
    (folder / "unet/diffusion_pytorch_model.safetensors").unlink()
    return folder


def test_a_preview_imports_nothing_of_diffusers(here: Path, tiny_model: Path):
    code = (
        "from mv3d.cli import main\n"
        f"assert main(['orbit', 'mug.png', '--model', {str(tiny_model)!r}, '--preview', '-o', 'out']) == 0\n"
        f"print([name for name in {(*OF_VIEWS, *OF_MESHES)} if name in sys.modules])"
    )
    root = str(Path(mv3d.__file__).parents[1])
    code = f"import sys\nsys.path.insert(0, {root!r})\n{code}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert load_orbit(here / "out").frames.any()


def test_a_preview_needs_no_network_that_makes_views(here: Path, model_without_unet: Path, capsys):
    given = ["orbit", "mug.png", "--model", str(model_without_unet), "-o", "out"]
    assert main(given) == 2
    assert "holds no diffusion_pytorch_model.safetensors" in capsys.readouterr().err
    assert not Path("out").exists()
    assert main([*given, "--preview"]) == 0


def test_a_model_that_cannot_be_loaded_is_one_line_for_all_pictures(here: Path, model_without_unet: Path, capsys):
    assert main(["orbit", "mug.png", "jug.png", "--model", str(model_without_unet), "-o", "out"]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "licence of its weights" not in line]
    assert len(lines) == 1
    assert "holds no diffusion_pytorch_model.safetensors" in lines[0]
    assert not Path("out").exists()


def test_stages_are_of_one_model(tiny_model: Path):
    staged = load_in_stages(str(tiny_model), "cpu", ModelOptions())
    assert isinstance(staged, StagedModel)
    whole = whole_model(staged)
    assert whole_model(staged) is whole
    assert whole.coarse is staged.coarse is not None
    for name in ("facts", "output_px", "device", "is_camera_conditioned"):
        assert getattr(staged, name) == getattr(whole, name), name


def test_a_model_without_a_surface_is_loaded_at_once(svd_folder: Path):
    model = load_in_stages(str(svd_folder), "cpu", ModelOptions())
    assert not isinstance(model, StagedModel)


@pytest.mark.parametrize(("factor", "problem"), [("2", "is no whole number"), (4096, "the limit is 16")])
def test_an_autoencoder_of_odd_sizes_is_refused_in_the_first_stage(tiny_model, tmp_path, factor, problem):
    folder = tmp_path / "odd"
    shutil.copytree(tiny_model, folder)
    config = folder / "vae/config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"upscale_factor": factor}))
    with pytest.raises(Mv3dError, match=problem):
        load_in_stages(str(folder), "cpu", ModelOptions())


# -------------------------------------------------------------------------------------------------
# Networks whose weights are still to come.


def test_weights_to_come_cost_no_random_numbers_and_keep_buffers():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    with weights_to_come():
        norm, layer = nn.BatchNorm1d(3), nn.Linear(3, 2)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(parameter.is_meta and parameter.requires_grad for parameter in (*norm.parameters(), *layer.parameters()))
    assert norm.running_var is not None
    assert torch.equal(norm.running_var, torch.ones(3))
    assert not nn.Linear(3, 2).weight.is_meta


def test_weights_of_other_threads_are_made_meanwhile():
    made: list[nn.Linear] = []
    with weights_to_come():
        other = threading.Thread(target=lambda: made.append(nn.Linear(3, 2)))
        other.start()
        other.join()
    assert not made[0].weight.is_meta


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_numbers_are_finite_though_their_sum_is_not(dtype: torch.dtype):
    large = torch.full((100,), torch.finfo(dtype).max, dtype=dtype)
    assert is_finite(large)
    for odd in (float("nan"), float("inf"), -float("inf")):
        assert not is_finite(large.index_fill(0, torch.tensor([5]), odd))
    both = torch.zeros(8, dtype=dtype)
    both[1], both[6] = float("inf"), -float("inf")
    assert not is_finite(both)
