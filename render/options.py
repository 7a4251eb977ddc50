"""The command line's options."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import get_args

from mv3d.errors import Mv3dError
from render.settings import PASSES, CameraPath, Renderer, Settings

Run = Callable[[argparse.Namespace], int]


def make_parser(verbs: Mapping[str, Run], description: str | None) -> argparse.ArgumentParser:
    """The parser; each verb's function becomes the namespace's ``run``."""
    parser = argparse.ArgumentParser(prog="python -m render", description=description)
    subparsers = parser.add_subparsers(required=True, metavar="VERB")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        verb = subparsers.add_parser(name, help=text, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        verb.set_defaults(run=verbs[name])
        return verb

    listing = add("list", "list the objects of SOURCE")
    _add_source(listing)
    orbits = add("orbits", "render every object of SOURCE to DIR/<object>/<k>/")
    _add_source(orbits)
    _add_settings(orbits)
    _add_farm(orbits)
    depth = add("depth", "add depth maps to the orbits of SOURCE that DIR holds")
    _add_source(depth)
    depth.add_argument("--out", metavar="DIR", type=Path, required=True, help="where the orbit folders are")
    _add_workers(depth)
    sheet = add("sheet", "draw a contact sheet of rendered objects")
    sheet.add_argument("place", metavar="DIR", type=Path, help="rendered orbits, or shards of them")
    sheet.add_argument("--out", type=Path, default=Path("sheet.png"), help="the picture")
    sheet.add_argument("--most", type=int, default=200, help="objects")
    pack = add("pack", "put rendered orbits into tar shards as WebDataset reads them")
    pack.add_argument("place", metavar="DIR", type=Path, help="rendered orbits")
    pack.add_argument("--out", metavar="DIR", type=Path, required=True, help="where the shards go")
    pack.add_argument("--per-shard", type=int, default=500, help="orbits in each")
    curate = add("curate", "score rendered objects and say which to train on")
    curate.add_argument("place", metavar="DIR", type=Path, help="rendered orbits")
    curate.add_argument("--rules", type=Path, default=Path("configs/curation.yaml"), help="thresholds")
    return parser


def settings_of(options: argparse.Namespace) -> Settings:
    """The settings that options of `orbits` ask for."""
    return Settings(
        num_views=options.num_views,
        size_px=options.size,
        seed=options.seed,
        elevation_low_deg=options.elevation[0],
        elevation_high_deg=options.elevation[1],
        yaw_deg=options.yaw,
        renderer=options.renderer,
        samples=options.samples,
        environments=options.environments,
        path=options.path,
        passes=tuple(options.passes),
    )


def parse_shard(text: str) -> tuple[int, int]:
    """``2/8`` is the third of eight."""
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise Mv3dError(f"--shard {text}: give I/N, with I from 0 to N - 1")
    return int(index), int(count)


def _add_source(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "source", metavar="SOURCE", help="mesh file, library, game data, a folder of them, or objaverse:..."
    )
    verb.add_argument(
        "--skins-per-shape", type=int, metavar="N", help="at most N objects that differ in their skin alone; else all"
    )
    verb.add_argument("--only", nargs="+", default=(), metavar="NAME", help="object ids, patterns, or files of them")
    verb.add_argument("--limit", type=int, metavar="N", help="the first N of them")
    verb.add_argument("--split", type=Path, metavar="FILE", help="lines of an object id or pattern, and its side")
    verb.add_argument("--licence", metavar="NAME", help="of objects whose source tells none, such as your meshes")
    verb.add_argument("--grey", action="store_true", help="meshes without any colour are grey, not left out")
    verb.add_argument("--group", type=int, metavar="N", help="scenes of N objects each, not single ones")


def _add_settings(verb: argparse.ArgumentParser) -> None:
    plain = Settings()
    verb.add_argument("--num-views", type=int, default=plain.num_views, help="views per orbit")
    verb.add_argument("--size", type=int, default=plain.size_px, help="width and height in pixels")
    verb.add_argument("--seed", type=int, default=plain.seed, help="draws lights, elevations and yaws")
    low_high = (plain.elevation_low_deg, plain.elevation_high_deg)
    verb.add_argument(
        "--elevation", type=float, nargs=2, metavar=("LOW", "HIGH"), default=low_high, help="range, in degrees"
    )
    verb.add_argument("--yaw", type=float, help="turn every object by this many degrees; drawn per orbit if not given")
    verb.add_argument("--path", choices=get_args(CameraPath), default=plain.path, help="how the camera moves")
    verb.add_argument("--passes", nargs="*", choices=PASSES, default=(), help="what to write beside the frames")
    verb.add_argument("--renderer", choices=get_args(Renderer), default=plain.renderer, help="cycles needs Blender")
    verb.add_argument("--samples", type=int, default=plain.samples, help="of Cycles, per pixel")
    verb.add_argument("--environments", metavar="DIR", help=".hdr and .exr pictures that light Cycles' scenes")


def _add_farm(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--out", metavar="DIR", type=Path, required=True, help="orbit folders and manifest go here")
    verb.add_argument("--num-orbits", type=int, default=1, help="orbits per object")
    _add_workers(verb)
    verb.add_argument("--shard", metavar="I/N", help="only every N-th object from I on, for job arrays; I from 0")
    verb.add_argument("--ray", metavar="ADDRESS", help="work on a Ray cluster (auto, or host:port)")
    verb.add_argument("--dry-run", action="store_true", help="render five objects, say what all will cost, and stop")


def _add_workers(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--workers", type=int, help="processes; one per core if not given")
    verb.add_argument("--timeout", type=float, default=300.0, metavar="SECONDS", help="time limit per orbit")
