"""What `finetune.dry_run` needs to know of Wan: its transformer and a step's loss, without numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from finetune.config import RunConfig
from finetune.wan_networks import check_wan_config
from mv3d.model.facts import FACTS_KEY
from mv3d.model.flow import FlowConditions, flow_error
from mv3d.model.hub import resolve_model, would_be_downloaded
from mv3d.model.lora import add_lora, train_pose_columns
from mv3d.model.wan_checkpoints import WAN_PX, is_wan_folder
from mv3d.model.wan_prompt import NUM_TOKENS
from mv3d.model.wan_transformer import POSE_CHANNELS, OrbitTransformer, stock_arguments
from mv3d.model.wan_video import count_latents
from mv3d.model.weights import load_json

_CELL_PX = 16  # of TI2V-5B's autoencoder


def looks_like_wan(base: str) -> bool:
    """Whether a base is Wan; one on the hub, which is not downloaded for this, by its name."""
    if would_be_downloaded(base):
        return base.split("/")[1].lower().startswith("wan")
    return is_wan_folder(resolve_model(base))


def make_wan_network(config: RunConfig, base: str) -> tuple[OrbitTransformer, int, str]:
    """The transformer as it is trained, on the meta device; width of its latents, and where its sizes are from.

    Raises:
        Mv3dError: as `check_wan_config`.
    """
    check_wan_config(config)
    stage, source, resolution_px, cell_px = config.diffusion, base, WAN_PX, _CELL_PX
    known, has_poses = {}, False
    if would_be_downloaded(base):
        source = f"{base}, taken to be of TI2V-5B's size (it is not here to be read)"
    else:
        place = resolve_model(base)
        known = stock_arguments(load_json(place / "transformer" / "config.json"))
        has_poses = bool(known.pop("pose_channels", 0))
        resolution_px = load_json(place / "model_index.json").get(FACTS_KEY, {}).get("resolution_px", WAN_PX)
        cell_px = load_json(place / "vae" / "config.json").get("scale_factor_spatial", _CELL_PX)
    with torch.device("meta"):
        network = OrbitTransformer(**known, pose_channels=POSE_CHANNELS if stage.conditions.poses else 0)
    if stage.lora is not None:
        add_lora(network, stage.lora.rank, stage.lora.alpha, stage.lora.targets)
        if stage.conditions.poses and not has_poses:
            train_pose_columns(network)
    return network, (config.resolution_px or resolution_px) // cell_px, source


def wan_loss(network: OrbitTransformer, num_views: int, size: int, batch: int, *, bfloat16: bool) -> Tensor:
    """That of a part of a batch, as `finetune.stages.flow` has it."""
    config, latents = network.config, count_latents(num_views)
    clean = torch.empty(batch, config["in_channels"], latents, size, size)
    rays = torch.empty(batch, config["pose_channels"], latents, size, size) if config["pose_channels"] else None
    conditions = FlowConditions(clean[:, :, :1], torch.empty(batch, NUM_TOKENS, config["text_dim"]), rays)
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        return flow_error(network, clean, torch.empty_like(clean), torch.empty(batch), conditions).mean()
