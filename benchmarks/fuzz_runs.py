"""Does anything damaged or hostile break the trainer: configs, run folders, checkpoints, packs, data, model folders?

    python benchmarks/fuzz_runs.py --count 200 --seed 0
    python benchmarks/fuzz_runs.py --first 40 --count 40       # in pieces

Every case is a command in a process of its own, on a fresh copy of a small run, of which one thing was changed. It must
end by itself, with 0 or with 2 and one line; and what the run does not own must be as it was: data, model, notes of
others, checkpoints that were not touched. Exit code 1 and a list if not.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.fuzz import MUTATIONS  # noqa: E402
from eval.metrics.lpips import Lpips  # noqa: E402
from finetune import __main__ as finetune  # noqa: E402
from finetune.read_config import load_config  # noqa: E402
from finetune.stages import autoencoder, diffusion  # noqa: E402
from mv3d import cli  # noqa: E402
from tests.finetune.conftest import ADAPT_CONFIG, LOOP, TOY_CONFIG, make_rendered  # noqa: E402
from tests.tiny import make_svd  # noqa: E402

TRUNCATE, FLIP_BYTES, WRONG_NUMBERS = MUTATIONS[:3]
CPU_SECONDS = 200
MEMORY_BYTES = 16 * 2**30
VALUES = (
    "0", "-1", "-0.5", ".nan", ".inf", "-.inf", "1e308", "1e-320", "1000000000000", "63", "7", "1.5", "2", "''", "x",
    "~", "[]", "[0]", "[-1, .nan]", "[[[]]]", "{}", "{a: 1}", "true", "../x", '"\\0"', "/dev/null",
)  # fmt: skip
OVERRIDES = (
    "a=[8",
    "=",
    "=3",
    ".=1",
    "loop=",
    "diffusion.loop.steps.x=1",
    "data={",
    "run=\t",
    "seed=2026-13-45",
    "x",
    "seed=&a [*a]",
)
NETWORKS = ("network", "ema", "optimizer")
NOTES = ("step-notes.txt", "step-0000001-backup/mine.txt")


@dataclass
class Case:
    """A command, and what it finds."""

    name: str
    main: Callable[[list[str]], int]
    arguments: list[str]
    touched: set[Path] = field(default_factory=set)
    """What was changed, and may change further."""


class Place:
    """A small run of every kind, good, and a copy of it that is spoilt again and again."""

    def __init__(self, root: Path) -> None:
        self.root, self.good = root / "work", root / "good"
        self.data, self.svd = make_rendered(self.root / "data"), make_svd(self.root / "svd")
        toy = TOY_CONFIG.format(data=self.data, run=self.root / "toy", loop=LOOP)
        (self.root / "toy.yaml").write_text(toy)
        adapt = ADAPT_CONFIG.format(
            base=self.svd, data=self.data, run=self.root / "adapt", conditions="{}", validation_objects=0
        )
        (self.root / "adapt.yaml").write_text(adapt)
        for config in ("toy", "adapt"):
            if finetune.main([str(self.root / f"{config}.yaml")]):
                raise SystemExit(f"the good {config} run does not run")
        for folder in (self.root / "toy/coarse", self.root / "adapt/diffusion"):
            for name in NOTES:
                (folder / name).parent.mkdir(exist_ok=True)
                (folder / name).write_text("mine")
        self.root.rename(self.good)

    def renew(self) -> None:
        """Make the copy anew."""
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.copytree(self.good, self.root, symlinks=True)

    def train(self, config: str, *more: str) -> list[str]:
        """A command that continues a run for a step."""
        loops = ("coarse.loop", "diffusion.loop", "autoencoder.loop") if config == "toy" else ("diffusion.loop",)
        steps = [word for loop in loops for word in ("--set", f"{loop}.steps=5")]
        return [str(self.root / f"{config}.yaml"), "--minutes", "1", *steps, *more]


# ---- What is changed.


def config_value(place: Place, rng: np.random.Generator) -> Case:
    """Any value of a config becomes one that it should not be."""
    config = str(rng.choice(["toy", "adapt"]))
    if rng.random() < 0.08:
        text = str(rng.choice(OVERRIDES))
        return Case(f"--set {text!r}", finetune.main, place.train(config, "--set", text))
    leaves = sorted(_leaves(dataclasses.asdict(load_config(place.root / f"{config}.yaml"))))
    leaves.remove("wandb_project")  # which would connect to a server; and a compiler takes minutes
    leaves = [name for name in leaves if not name.endswith("loop.compile")]
    name, value = str(rng.choice(leaves)), str(rng.choice(VALUES))
    stage = name.split(".")[0]
    more = (
        ["--stage", stage if stage in ("coarse", "diffusion", "autoencoder") else "coarse"] if config == "toy" else []
    )
    dry = ["--dry-run"] if rng.random() < 0.2 else []
    return Case(f"{config} {name}={value}", finetune.main, place.train(config, *more, *dry, "--set", f"{name}={value}"))


def config_file(place: Place, rng: np.random.Generator) -> Case:
    """The file itself is cut off, overwritten, or no file."""
    config = str(rng.choice(["toy", "adapt"]))
    path = place.root / f"{config}.yaml"
    return Case(_spoil(path, rng), finetune.main, [str(path), "--minutes", "1"], {path})


def run_folder(place: Place, rng: np.random.Generator) -> Case:
    """Something else stands where the run has its own."""
    config = str(rng.choice(["toy", "adapt"]))
    run = place.root / config
    names = [
        "",
        "config.json",
        ".lock",
        "model",
        "diffusion",
        "coarse",
        "coarse/log.jsonl",
        "coarse/sheets",
        "diffusion/log.jsonl",
    ]
    path = run / str(rng.choice([name for name in names if name == "" or (run / name).exists() or name == "model"]))
    damage = _replace(path, rng)
    return Case(damage, finetune.main, place.train(config, *(["--stage", "coarse"] if config == "toy" else [])), {path})


def checkpoint(place: Place, rng: np.random.Generator) -> Case:
    """A file of a checkpoint, or of both, is damaged, gone, or another one's."""
    config, stage = ("toy", "coarse") if rng.random() < 0.5 else ("adapt", "diffusion")
    folders = sorted(path for path in (place.root / config / stage).glob("step-???????"))
    chosen = folders if rng.random() < 0.2 else [folders[-1] if rng.random() < 0.8 else folders[0]]
    name = str(rng.choice(["network.safetensors", "ema.safetensors", "optimizer.safetensors", "state.json"]))
    damage = " and ".join(_spoil(folder / name, rng) for folder in chosen)
    more = ["--stage", stage] if config == "toy" else []
    return Case(damage, finetune.main, place.train(config, *more), {folder / name for folder in chosen})


def cache(place: Place, rng: np.random.Generator) -> Case:
    """A file of a pack, of cached latents or of a shard is damaged or gone."""
    files = [path for run in ("toy", "adapt") for kind in ("pack-*", "latents-*") for path in
             (place.root / run).glob(f"{kind}/*") if path.is_file()]  # fmt: skip
    path = _pick(files, rng)
    config = path.relative_to(place.root).parts[0]
    stage = "coarse" if "pack" in path.parent.name else "diffusion"
    more = ["--stage", stage] if config == "toy" else []
    return Case(_spoil(path, rng), finetune.main, place.train(config, *more), {path})


def data(place: Place, rng: np.random.Generator) -> Case:
    """A manifest, an orbit's cameras, a frame or a depth map is damaged, and the run begins anew."""
    files = [path for path in place.data.rglob("*") if path.is_file()]
    heads = [path for path in files if path.suffix in (".json", ".jsonl")]
    path = _pick(heads if rng.random() < 0.5 else files, rng)
    damage = _spoil(path, rng)
    config = str(rng.choice(["toy", "adapt"]))
    more = ["--stage", "coarse"] if config == "toy" else []
    return Case(damage, finetune.main, place.train(config, *more, "--set", f"run={place.root / 'new'}"), {path})


def model_folder(place: Place, rng: np.random.Generator) -> Case:
    """A file of a model is damaged, and it is adapted or asked for an orbit."""
    folder = place.svd if rng.random() < 0.5 else place.root / "toy" / "model"
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix in (".json", ".safetensors")]
    configs = [path for path in files if path.suffix == ".json"]
    path = _pick(configs if rng.random() < 0.6 else files, rng)
    damage = _spoil(path, rng)
    if folder == place.svd and rng.random() < 0.5:
        dry = ["--dry-run"] if rng.random() < 0.3 else []
        return Case(damage, finetune.main, place.train("adapt", *dry, "--set", f"run={place.root / 'new'}"), {path})
    picture = next(place.data.rglob("frames/000.png"))
    words = ["orbit", str(picture), "--model", str(folder), "-o", str(place.root / "orbit"), "--steps", "1"]
    return Case(f"orbit: {damage}", cli.main, [*words, "--num-views", "4"], {path})


CASES = (config_value, config_file, run_folder, checkpoint, cache, data, model_folder)
_SHARES = np.array([0.36, 0.06, 0.1, 0.16, 0.1, 0.1, 0.12])


def _leaves(tree: dict[str, Any], before: str = "") -> list[str]:
    found: list[str] = []
    for key, value in tree.items():
        found += [f"{before}{key}"] + (_leaves(value, f"{before}{key}.") if isinstance(value, dict) else [])
    return found


def _pick(paths: list[Path], rng: np.random.Generator) -> Path:
    return sorted(paths)[rng.integers(len(paths))]


def _spoil(path: Path, rng: np.random.Generator) -> str:
    """Damage a file in one way or another; says what was done."""
    if rng.random() < 0.2:
        return _replace(path, rng)
    mutation = (TRUNCATE, FLIP_BYTES, WRONG_NUMBERS)[rng.integers(3)]
    path.write_bytes(mutation({"file": path.read_bytes()}, rng)["file"])
    return f"{mutation.__name__} {path.name} in {path.parent.name}"


def _replace(path: Path, rng: np.random.Generator) -> str:
    """Put something else in a path's place."""
    kind = str(rng.choice(["nothing", "empty", "folder", "loop", "pipe", "noise", "nested"]))
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    if kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind != "nothing":
        path.write_bytes({"empty": b"", "noise": rng.bytes(300), "nested": b"[" * 100_000}[kind])
    return f"{kind} for {path.name or 'the run'} in {path.parent.name}"


# ---- What becomes of it.


def run_case(case: Case, place: Place, patience_s: float) -> tuple[str, list[str]]:
    """Run a case in a child; returns how it ended, and what is wrong with that."""
    before, steps = _digests(place, case), _whole_steps(place, case)
    said = place.root.with_name("said")
    child = os.fork()
    if not child:
        os._exit(_in_child(case, said))
    deadline, status = time.monotonic() + patience_s, 0
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "hang", [f"no end after {patience_s:g} s"]
        time.sleep(0.02)
    status = ended[1]
    code, text = os.waitstatus_to_exitcode(status), said.read_text(errors="replace")
    faults = []
    lines = [line for line in text.replace("\r", "\n").splitlines() if line.startswith(("finetune: ", "mv3d: "))]
    if code < 0:
        faults.append(f"signal {signal.Signals(-code).name}")
    elif "Traceback (most recent" in text or code not in (0, 2):
        faults.append(f"exit code {code}: {text.strip().splitlines()[-1:]}")
    elif code == 2 and not (lines and text.strip().endswith(lines[-1])):
        faults.append(f"exit code 2 without one line at the end: {text.strip().splitlines()[-2:]}")
    after = _digests(place, case)
    faults += [f"changed or lost: {path}" for path, digest in before.items() if after.get(path) != digest]
    there = _whole_steps(place)
    faults += [f"step {step} of {stage} is lost" for stage, step in steps.items() if there.get(stage, -1) < step]
    return {0: "went on", 2: "refused"}.get(code, "broke"), faults


def _in_child(case: Case, said: Path) -> int:
    with said.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**31, 2**31))
    torch.set_num_threads(1)
    try:
        os.chdir(said.parent / "work")  # relative names of the cases stay below the temporary folder
        return case.main(case.arguments)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _digests(place: Place, case: Case) -> dict[Path, str]:
    """Of all that no command may change: data, model, notes."""
    kept = [path for folder in (place.data, place.svd) for path in folder.rglob("*")]
    kept += [path for name in NOTES for path in place.root.glob(f"*/*/{name}")]
    return {
        path: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in kept
        if path not in case.touched and path.is_file() and not path.is_symlink()
    }


def _whole_steps(place: Place, case: Case | None = None) -> dict[Path, int]:
    """The newest step that each stage has a whole checkpoint of, if that is not one that the case touches."""
    newest: dict[Path, int] = {}
    for folder in sorted(place.root.glob("*/*/step-???????")):
        state, *files = (folder / name for name in ("state.json", *(f"{n}.safetensors" for n in NETWORKS)))
        touched = set() if case is None else case.touched
        if touched & {folder, state, *files, *folder.parents} or not all(map(Path.is_file, (state, *files))):
            continue
        try:
            known = json.loads(state.read_text())["checksums"]
            if all(zlib.crc32(path.read_bytes()) == known[path.stem] for path in files):
                newest[folder.parent] = int(folder.name.removeprefix("step-"))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue
    return newest


def main() -> int:
    """Run it; returns 0 if nothing broke."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="the number of the first case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=[make.__name__ for make in CASES], help="cases of one kind")
    parser.add_argument("--patience", type=float, default=900.0, help="seconds after which a case hangs")
    options = parser.parse_args()
    lpips = Lpips("alex")  # of random weights, so that none need be fetched
    for stage in (autoencoder, diffusion):
        vars(stage)["load_lpips"] = lambda net: lpips
    kinds = {make.__name__: make for make in CASES}
    ends: Counter[str] = Counter()
    faults: list[str] = []
    with tempfile.TemporaryDirectory(prefix="mv3d-fuzz-runs-") as folder:
        place = Place(Path(folder))
        for number in range(options.first, options.first + options.count):
            rng = np.random.default_rng([options.seed, number])
            make = kinds[options.only] if options.only else CASES[rng.choice(len(CASES), p=_SHARES)]
            place.renew()
            case = make(place, rng)
            end, found = run_case(case, place, options.patience)
            ends[end] += 1
            faults += [f"{number} {make.__name__}, {case.name}: {fault}" for fault in found]
            for fault in found:
                print(f"{number} {make.__name__}, {case.name}: {fault}", flush=True)
    print(f"{options.count} cases: {ends['went on']} went on all the same, ", end="")
    print(f"{ends['refused']} refused, {len(faults)} faults")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
