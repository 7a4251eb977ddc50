"""LoRAs of diffusers, peft and kohya's scripts: read, written, and loaded by the programs that they are for."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from diffusers import UNetSpatioTemporalConditionModel
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mv3d.cli import main
from mv3d.errors import Mv3dError
from mv3d.model.lora import LoraUse, with_loras
from mv3d.model.lora_file import LORA_FILE, PEFT_FILE, LoraLayer, LoraWeights, read_lora, write_lora
from mv3d.model.lora_names import make_key, split_key
from mv3d.model.stability_keys import unet_name
from tests.mv3d.sgm import stability_shapes
from tests.mv3d.test_lora import inputs, make_file, make_model, make_unet
from tests.tiny import TINY_UNET

UNET = "model.diffusion_model."
ATTENTION = "down_blocks.0.attentions.0.temporal_transformer_blocks.0.attn1"


def make_weights(stock, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> LoraWeights:
    """A LoRA of every second layer of the UNet, with ranks and alphas of its own for some."""
    generator = torch.Generator().manual_seed(seed)
    layers = {}
    wanted = re.compile(r".*(attn[12]\.to_[qkv]|to_out\.0|ff\.net\.2|proj_in|spatial_res_block\.conv1)")
    for k, name in enumerate(name for name, _ in stock.named_modules() if wanted.fullmatch(name)):
        weight = stock.get_submodule(name).weight
        rank = 3 if k % 5 == 0 else 2
        down = torch.randn(rank, *weight.shape[1:], generator=generator)
        up = torch.randn(len(weight), rank, *[1] * (weight.ndim - 2), generator=generator)
        layers[name] = LoraLayer((0.3 * down).to(dtype), (0.3 * up).to(dtype), 1.5 if k % 3 == 0 else 4.0)
    return LoraWeights(layers)


def same(one: LoraWeights, other: LoraWeights) -> bool:
    def tensors(lora: LoraWeights) -> list[torch.Tensor]:
        return [half for name in sorted(lora.layers) for half in (lora.layers[name].down, lora.layers[name].up)]

    pairs = zip(tensors(one), tensors(other), strict=True)
    alphas = [{name: layer.alpha for name, layer in lora.layers.items()} for lora in (one, other)]
    return alphas[0] == alphas[1] and all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)


def contents(place: Path) -> dict[str, bytes]:
    files = [place] if place.is_file() else sorted(place.iterdir())
    return {path.name if place.is_dir() else "": path.read_bytes() for path in files}


def test_every_layer_of_svd_has_its_name_in_kohyas_style():
    """ComfyUI looks for ``lora_unet_`` and the name of Stability AI's own weight, underscores for dots."""
    names = [key.removeprefix(UNET) for key in stability_shapes("SVD") if key.startswith(UNET)]
    weights = [name.removesuffix(".weight") for name in names if name.endswith(".weight")]
    assert len(weights) > 600
    for name in weights:
        module = unet_name(f"{name}.weight", 2).removesuffix(".weight")
        flat = f"lora_unet_{name.replace('.', '_')}"
        assert make_key(module, "up", "kohya") == f"{flat}.lora_up.weight"
        assert split_key(f"{flat}.lora_down.weight") == (module, "down")
        # By names of diffusers with underscores, as kohya's scripts call layers of Stable Diffusion 1.
        assert split_key(f"lora_unet_{module.replace('.', '_')}.alpha") == (module, "alpha")
        assert split_key(f"diffusion_model.{name}.lora_A.weight") == (module, "down")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_styles_become_each_other_and_come_back_with_equal_bytes(stock, tmp_path, dtype):
    lora = make_weights(stock, dtype=dtype)
    places = {"diffusers": "a.safetensors", "peft": "peft", "kohya": "b.safetensors"}
    for style, name in places.items():
        write_lora(lora, tmp_path / name, style)
    for style, name in places.items():
        found = read_lora(tmp_path / name / PEFT_FILE if style == "peft" else tmp_path / name)
        assert same(found, lora), style
        for other, there in places.items():
            if {style, other} != {"kohya", "peft"}:  # below, by the command
                write_lora(found, tmp_path / f"{style}-{there}", other)
                assert contents(tmp_path / f"{style}-{there}") == contents(tmp_path / there), (style, other)
    command = ["lora", "convert", str(tmp_path / "peft"), "-o", str(tmp_path / "c.safetensors"), "--to", "kohya"]
    assert main(command) == 0
    assert contents(tmp_path / "c.safetensors") == contents(tmp_path / "b.safetensors")
    assert main(["lora", "convert", str(tmp_path / "c.safetensors"), "-o", str(tmp_path / "c"), "--to", "peft"]) == 0
    assert contents(tmp_path / "c") == contents(tmp_path / "peft")


def test_what_mv3d_knows_of_a_lora_survives_other_styles(stock, tmp_path):
    path = make_file(stock, tmp_path / "own.safetensors", seed=1)
    write_lora(read_lora(path), tmp_path / "kohya.safetensors", "kohya")
    write_lora(read_lora(tmp_path / "kohya.safetensors"), tmp_path / "again.safetensors", "diffusers")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()
    lora = read_lora(tmp_path / "again.safetensors")
    assert lora.facts.base == "base"
    assert lora.pose is not None


@torch.no_grad()
def test_diffusers_loads_it_with_every_rank_and_alpha(stock, unet, tmp_path):
    lora = make_weights(stock)
    write_lora(lora, tmp_path / LORA_FILE, "diffusers")
    ours = with_loras(make_model(make_unet(stock)), [LoraUse(tmp_path / LORA_FILE)]).unet
    unet.load_lora_adapter(tmp_path, prefix="unet", use_safetensors=True, weight_name=LORA_FILE)
    torch.testing.assert_close(unet(*inputs()), ours(*inputs()), rtol=1e-4, atol=1e-4)
    assert (ours(*inputs()) - make_unet(stock)(*inputs())).abs().max() > 1e-2
    for name, layer in lora.layers.items():
        assert unet.get_submodule(name).scaling["default_0"] == layer.alpha / layer.rank


@torch.no_grad()
def test_peft_loads_it_on_diffusers_own_network(stock, tmp_path):
    write_lora(make_weights(stock), tmp_path / "peft", "peft")
    other = UNetSpatioTemporalConditionModel(**TINY_UNET).eval()
    other.load_state_dict(stock.state_dict())
    theirs = PeftModel.from_pretrained(other, str(tmp_path / "peft"))
    ours = with_loras(make_model(make_unet(stock)), [LoraUse(tmp_path / "peft" / PEFT_FILE)]).unet
    expected = ours(*inputs()[:4], torch.zeros(2, 3, 2))
    torch.testing.assert_close(theirs(*inputs()[:4]).sample, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_what_peft_writes_is_read_and_written_again(stock, tmp_path):
    other = UNetSpatioTemporalConditionModel(**TINY_UNET).eval()
    other.load_state_dict(stock.state_dict())
    config = LoraConfig(
        r=2,
        lora_alpha=3,
        target_modules=["to_q", "to_v", "proj_in"],
        rank_pattern={r".*attn1\.to_q": 4},
        alpha_pattern={"attn1.to_v": 7},
    )
    theirs = get_peft_model(other, config)
    for name, value in theirs.named_parameters():
        if "lora_B" in name:
            value.normal_(generator=torch.Generator().manual_seed(len(name)))
    theirs.save_pretrained(tmp_path / "peft")
    lora = read_lora(tmp_path / "peft" / PEFT_FILE)
    of = {
        name: (lora.layers[f"{ATTENTION}.{name}"].rank, lora.layers[f"{ATTENTION}.{name}"].alpha)
        for name in ("to_q", "to_v")
    }
    assert of == {"to_q": (4, 3.0), "to_v": (2, 7.0)}
    ours = with_loras(make_model(make_unet(stock)), [LoraUse(tmp_path / "peft" / PEFT_FILE)]).unet
    expected = theirs(*inputs()[:4]).sample
    torch.testing.assert_close(ours(*inputs()[:4], torch.zeros(2, 3, 2)), expected, rtol=1e-4, atol=1e-4)
    write_lora(lora, tmp_path / "again", "peft")
    one, two = (load_file(tmp_path / name / PEFT_FILE) for name in ("peft", "again"))
    assert one.keys() == two.keys()
    assert all(torch.equal(value, two[key]) for key, value in one.items())


@torch.no_grad()
def test_files_of_others_are_read_whatever_their_keys(stock, tmp_path):
    """Of older diffusers, and of kohya's scripts with a convolution for a product and a header of their own."""
    q, conv = f"{ATTENTION}.to_q", "down_blocks.0.attentions.0.proj_in"
    halves = {name: (torch.randn(2, 32), torch.randn(32, 2)) for name in (q, conv)}
    save_file(
        {
            f"unet.{n}.lora.{h}.weight": t
            for n, pair in halves.items()
            for h, t in zip(("down", "up"), pair, strict=True)
        },
        tmp_path / "old.safetensors",
    )
    kohya = {}
    for name, (down, up) in halves.items():
        flat = f"lora_unet_{name.replace('.', '_')}"
        shape = (1, 1) if name == conv else ()
        kohya |= {
            f"{flat}.lora_down.weight": down.view(2, 32, *shape),
            f"{flat}.lora_up.weight": up.view(32, 2, *shape),
        }
        kohya[f"{flat}.alpha"] = torch.tensor(2.0)
    save_file(kohya, tmp_path / "kohya.safetensors", metadata={"ss_network_dim": "2", "ss_training_comment": "chairs"})
    outputs = [
        with_loras(make_model(make_unet(stock)), [LoraUse(tmp_path / f"{name}.safetensors")]).unet(*inputs())
        for name in ("old", "kohya")
    ]
    assert torch.equal(*outputs)  # no alpha is an alpha of the rank
    assert (outputs[0] - make_unet(stock)(*inputs())).abs().max() > 1e-2
    write_lora(read_lora(tmp_path / "kohya.safetensors"), tmp_path / "again.safetensors", "kohya")
    with safe_open(tmp_path / "again.safetensors", framework="pt") as file:
        assert file.metadata()["ss_training_comment"] == "chairs"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.pop(f"unet.{ATTENTION}.to_q.lora_B.weight"),
            "for .*to_q it holds {'down': .*no two halves of one rank",
        ),
        (lambda t: t.update({f"unet.{ATTENTION}.to_q.lora_B.weight": torch.zeros(32, 5)}), "no two halves of one rank"),
        (
            lambda t: t.update({f"unet.{ATTENTION}.to_q.dora_scale": torch.zeros(1)}),
            "holds 1 tensors that are none: .*dora",
        ),
        (lambda t: t.update({"lora_te_text_model_x.hada_w1_a": torch.zeros(1)}), "is no LoRA of SVD's UNet"),
        (lambda t: t.clear(), "it is empty"),
        (lambda t: t.update({f"unet.{ATTENTION}.to_q.alpha": torch.zeros(3)}), "the alpha of .*to_q is no number"),
    ],
)
def test_what_is_no_lora_is_one_line(stock, tmp_path, change, message):
    tensors = load_file(make_file(stock, tmp_path / "a.safetensors", seed=0))
    tensors = {key: value for key, value in tensors.items() if not key.startswith("pose.")}
    change(tensors)
    save_file(tensors, tmp_path / "b.safetensors", metadata={"format": "pt"})
    with pytest.raises(Mv3dError, match=message) as caught:
        read_lora(tmp_path / "b.safetensors")
    assert "\n" not in str(caught.value)


def test_kinds_that_are_not_applied_are_refused(stock, tmp_path):
    write_lora(make_weights(stock), tmp_path / "peft", "peft")
    config = tmp_path / "peft" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"use_dora": True}))
    with pytest.raises(Mv3dError, match=r"is a LoRA with DoRA \(use_dora\), which mv3d does not apply"):
        read_lora(tmp_path / "peft" / PEFT_FILE)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["absent.safetensors", "-o", "b.safetensors", "--to", "kohya"], "there is no file absent.safetensors"),
        (
            ["a.safetensors", "-o", "b", "--to", "kohya"],
            "b: a LoRA in kohya style is a file; name it .safetensors (--out)",
        ),
        (
            ["a.safetensors", "-o", "b.safetensors", "--to", "peft"],
            "a LoRA in peft style is a folder; leave .safetensors out",
        ),
        (["a.safetensors", "-o", "a.safetensors", "--to", "kohya"], "a.safetensors exists already"),
        (["a.safetensors", "-o", "b.safetensors", "--to", "a1111"], "invalid choice"),
    ],
)
def test_convert_says_what_is_wrong(stock, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    make_file(stock, tmp_path / "a.safetensors", seed=0)
    assert main(["lora", "convert", *words]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]
