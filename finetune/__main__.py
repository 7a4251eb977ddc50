"""``python -m finetune CONFIG``: train every stage of a model, or one, continuing where the last leg stopped."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
import time
from pathlib import Path

from mv3d.errors import Mv3dError


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m finetune", description=__doc__)
    parser.add_argument("config", type=Path, help="a YAML file; presets are in configs/")
    parser.add_argument("--stage", choices=("autoencoder", "volume", "diffusion"), help="train only this stage")
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="stop after this long, saved; run again to go on"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override, e.g. volume.loop.steps=10"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the resolved config and stop")
    options = parser.parse_args(arguments)
    try:
        return _run(options)
    except Mv3dError as error:
        print(f"finetune: {error}", file=sys.stderr)
        return 2


def _run(options: argparse.Namespace) -> int:
    from finetune.config import load_config

    deadline = time.monotonic() + 60 * options.minutes
    config = load_config(options.config, options.set)
    resolved = json.dumps(dataclasses.asdict(config), indent=1, default=str)
    if options.dry_run:
        print(resolved)
        return 0

    from finetune.assemble import assemble_model
    from finetune.data import pack_orbits
    from finetune.log import TrainingLog
    from finetune.loop import latest_checkpoint, train
    from finetune.stages import STAGES

    config.run.mkdir(parents=True, exist_ok=True)
    (config.run / "config.json").write_text(resolved + "\n")
    pack = pack_orbits(config.data, config.run / f"pack-{config.resolution_px}", config.resolution_px)
    for name in (options.stage,) if options.stage else tuple(STAGES):
        stage = STAGES[name](config, pack)
        if config.start_from is not None and latest_checkpoint(config.run / name) is None:
            stage.start_from(config.start_from)
        loop = getattr(config, name).loop
        log = TrainingLog(config.run / name, wandb_project=config.wandb_project, config=json.loads(resolved))
        if not train(stage, loop, config.run / name, log, seed=config.seed, deadline=deadline):
            print(f"finetune: {name} stopped before step {loop.steps}; the same command continues it", file=sys.stderr)
            break
    assemble_model(config, pack)
    return 0


if __name__ == "__main__":
    sys.exit(main())
