from __future__ import annotations

import math

import pytest
import torch
from diffusers import UNetSpatioTemporalConditionModel
from peft import LoraConfig

from mv3d.errors import Mv3dError
from mv3d.model.conditioning import Conditions
from mv3d.model.denoiser import Denoiser
from mv3d.model.surgery import from_stock
from mv3d.model.unet import OrbitUNet

TINY = {
    "block_out_channels": (32, 64, 64),
    "down_block_types": ("CrossAttnDownBlockSpatioTemporal",) * 2 + ("DownBlockSpatioTemporal",),
    "up_block_types": ("UpBlockSpatioTemporal",) + ("CrossAttnUpBlockSpatioTemporal",) * 2,
    "num_attention_heads": (1, 2, 2),
    "layers_per_block": 1,
    "cross_attention_dim": 16,
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 24,
}
POSE_DIM = 16


@pytest.fixture(scope="module")
def stock() -> UNetSpatioTemporalConditionModel:
    torch.manual_seed(0)
    return UNetSpatioTemporalConditionModel(**TINY).eval()


def make_inputs(batch: int, frames: int, size: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(batch * 100 + frames)
    sample = torch.randn(batch, frames, 8, size, size, generator=generator)
    context = torch.randn(batch, 1, 16, generator=generator)
    ids = torch.tensor([[6.0, 127.0, 0.02]]).repeat(batch, 1)
    return sample, torch.randn(batch, generator=generator), context, ids


# 21 x 3 rows change the blocking of matrix products against 3; 9 and 5 are sizes that do not halve evenly.
@pytest.mark.parametrize(("batch", "frames", "size"), [(1, 1, 8), (1, 5, 9), (2, 3, 5), (3, 21, 4)])
@pytest.mark.parametrize("coarse_channels", [0, 4])
@torch.no_grad()
def test_with_zero_columns_it_is_stock_svd_bit_for_bit(stock, batch, frames, size, coarse_channels):
    unet = from_stock(stock.state_dict(), stock.config, pose_embed_dim=POSE_DIM, coarse_channels=coarse_channels).eval()
    sample, *rest = make_inputs(batch, frames, size)
    coarse = torch.randn(batch, frames, coarse_channels, size, size)
    output = unet(torch.cat([sample, coarse], dim=2), *rest, torch.rand(batch, frames, 2) * 6)
    assert torch.equal(output, stock(sample, *rest).sample)


@torch.no_grad()
def test_cutting_the_ids_to_cond_aug_keeps_svd_where_it_is_sampled(stock):
    unet = from_stock(stock.state_dict(), stock.config, pose_embed_dim=POSE_DIM, cond_aug_only=True).eval()
    seen = []
    handles = [
        network.add_embedding.register_forward_hook(lambda module, args, output: seen.append(output))
        for network in (stock, unet)
    ]
    sample, timestep, context, ids = make_inputs(2, 3, 4)
    stock(sample, timestep, context, ids)
    unet(sample, timestep, context, ids[:, 2:], torch.rand(2, 3, 2))
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(seen[1], seen[0][:, None].expand_as(seen[1]))
    one_id = {key: value for key, value in unet.config.items() if key not in ("pose_embed_dim", "coarse_channels")}
    state = unet.state_dict()
    state["add_embedding.linear_1.weight"] = state["add_embedding.linear_1.weight"][:, :8]
    with pytest.raises(Mv3dError, match="these weights have 1"):
        from_stock(state, one_id, cond_aug_only=True)


def test_weights_of_another_width_are_refused(stock):
    with pytest.raises(Mv3dError, match="of another shape: conv_in.weight"):
        from_stock(stock.state_dict(), dict(stock.config) | {"in_channels": 9})


def test_at_full_size_it_is_svd_and_the_pose_columns():
    with torch.device("meta"):
        stock, ours = UNetSpatioTemporalConditionModel(), OrbitUNet()
    shapes = {name: tuple(value.shape) for name, value in stock.state_dict().items()}
    assert shapes.pop("add_embedding.linear_1.weight") == (1280, 768)
    ours_shapes = {name: tuple(value.shape) for name, value in ours.state_dict().items()}
    assert ours_shapes.pop("add_embedding.linear_1.weight") == (1280, 768 + 1024)
    assert ours_shapes == shapes
    assert stock.num_parameters() == 1_524_623_082
    assert ours.num_parameters() - stock.num_parameters() == 1024 * 1280
    assert [block.num_attention_heads for block in ours.down_blocks[:3]] == [5, 10, 20]
    assert ours.mid_block.num_attention_heads == 20


def test_svd_widths_with_other_heads_are_refused():
    with pytest.raises(Mv3dError, match=r"\(5, 10, 10, 20\).*\(5, 10, 20, 20\)"):
        OrbitUNet(num_attention_heads=[5, 10, 10, 20])


@torch.no_grad()
def test_the_added_vector_is_ids_then_polar_then_azimuth():
    unet = OrbitUNet(**TINY, pose_embed_dim=POSE_DIM)
    seen = []
    unet.add_embedding.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    sample, timestep, context, ids = make_inputs(2, 3, 4)
    pose = torch.rand(2, 3, 2) * 6
    unet(sample, timestep, context, ids, pose)

    def sinusoids(value: float, width: int) -> list[float]:
        angles = [value * 10000 ** (-k / (width // 2)) for k in range(width // 2)]
        return [math.cos(a) for a in angles] + [math.sin(a) for a in angles]

    parts = [*((i, 8) for i in ids[1].tolist()), *((p, POSE_DIM) for p in pose[1, 2].tolist())]
    expected = torch.tensor([x for value, width in parts for x in sinusoids(value, width)])
    torch.testing.assert_close(seen[0][1, 2], expected, rtol=0, atol=2e-5)


def test_new_columns_learn_from_the_first_step(stock):
    unet = from_stock(stock.state_dict(), stock.config, pose_embed_dim=POSE_DIM, coarse_channels=4)
    sample, *rest = make_inputs(1, 3, 4)
    unet(torch.cat([sample, torch.randn(1, 3, 4, 4, 4)], dim=2), *rest, torch.rand(1, 3, 2)).square().mean().backward()
    assert unet.add_embedding.linear_1.weight.grad[:, 24:].abs().max() > 0
    assert unet.conv_in.weight.grad[:, 8:].abs().max() > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_a_tenth_of_a_degree_is_seen_in_half_precision(dtype):
    """An angle of half precision would not hold it: bfloat16 at 180 degrees goes in steps of 0.9."""
    torch.manual_seed(0)
    unet = OrbitUNet(**TINY, pose_embed_dim=POSE_DIM).to(dtype)
    seen = []
    unet.add_embedding.register_forward_hook(lambda module, args, output: seen.append((args[0][0], output[0])))
    azimuths = torch.deg2rad(torch.tensor([90.0, 90.1, 180.0, 180.1, 270.0, 270.1]))
    poses = torch.stack([torch.full((6,), math.pi / 2), azimuths], dim=-1)[None]
    conditions = Conditions(torch.zeros(1, 4, 4, 4), torch.zeros(1, 1, 16), torch.zeros(1, 3), poses)
    Denoiser(unet)(torch.zeros(1, 6, 4, 4, 4), torch.ones(1), conditions)
    ((sinusoids, embedding),) = seen
    assert sinusoids.dtype == embedding.dtype == dtype
    exact = torch.cat([azimuths.cos()[:, None], azimuths.sin()[:, None]], dim=1)
    of_azimuth = sinusoids[:, -POSE_DIM:]  # cosines, then sines, by frequencies that begin with 1
    torch.testing.assert_close(of_azimuth[:, :: POSE_DIM // 2].float(), exact, rtol=2**-8, atol=1e-6)
    for k in (0, 2, 4):
        assert not torch.equal(embedding[k], embedding[k + 1]), azimuths[k]


@torch.no_grad()
def test_each_frame_gets_its_own_pose():
    torch.manual_seed(0)
    unet = OrbitUNet(**TINY, pose_embed_dim=POSE_DIM)
    seen = []
    unet.add_embedding.register_forward_hook(lambda module, args, output: seen.append(output))
    sample, *rest = make_inputs(2, 3, 4)
    pose = torch.rand(2, 3, 2)
    changed = pose.clone()
    changed[1, 2, 1] += 1
    first, second = (unet(sample, *rest, p) for p in (pose, changed))
    touched = (seen[0] != seen[1]).any(dim=-1)
    assert touched.tolist() == [[False, False, False], [False, False, True]]
    assert torch.equal(first[0], second[0])
    assert not torch.equal(first[1], second[1])


@pytest.mark.parametrize("layers", [1, 2])
@torch.no_grad()
def test_widths_are_free(layers):
    unet = OrbitUNet(
        in_channels=16,
        out_channels=8,
        block_out_channels=(32, 64, 96),
        down_block_types=("CrossAttnDownBlockSpatioTemporal",) * 3,
        up_block_types=("CrossAttnUpBlockSpatioTemporal",) * 3,
        num_attention_heads=(1, 2, 3),
        layers_per_block=layers,
        cross_attention_dim=16,
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=8,
        pose_embed_dim=0,
    )
    sample = torch.randn(1, 2, 16, 4, 4)
    output = unet(sample, torch.zeros(1), torch.zeros(1, 1, 16), torch.full((1, 1), 1e-5))
    assert output.shape == (1, 2, 8, 4, 4)


@torch.no_grad()
def test_diffusers_saves_and_loads_it(tmp_path):
    unet = OrbitUNet(**TINY, pose_embed_dim=POSE_DIM, coarse_channels=4).eval()
    unet.save_pretrained(tmp_path)
    again = OrbitUNet.from_pretrained(tmp_path)
    assert again.config["in_channels"] == 8
    assert again.config["coarse_channels"] == 4
    state = unet.state_dict()
    assert again.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in again.state_dict().items())


@torch.no_grad()
def test_lora_can_be_added_and_starts_as_nothing(stock):
    unet = from_stock(stock.state_dict(), stock.config, pose_embed_dim=POSE_DIM).eval()
    unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_k", "to_v", "to_out.0", "add_embedding.linear_1"]))
    trained = {name for name, parameter in unet.named_parameters() if parameter.requires_grad}
    assert any("temporal_transformer_blocks" in name for name in trained)
    assert all("lora" in name for name in trained)
    sample, *rest = make_inputs(2, 3, 4)
    pose = torch.rand(2, 3, 2)
    torch.testing.assert_close(unet(sample, *rest, pose), stock(sample, *rest).sample, rtol=0, atol=1e-4)
    unet.get_submodule("add_embedding.linear_1.lora_B.default").weight.fill_(0.1)
    assert (unet(sample, *rest, pose) - stock(sample, *rest).sample).abs().max() > 1e-2
