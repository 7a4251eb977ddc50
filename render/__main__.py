"""``python -m render``: list the objects of a source, or render them to orbit folders."""

from __future__ import annotations

import argparse
import signal
import sys
from collections import Counter
from pathlib import Path

from mv3d.errors import Mv3dError
from render.farm import Settings, render_sources
from render.sources import SourceObject, find_objects, limit_skins


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code (2 for a mistake of the user's, told in one line)."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except Mv3dError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m render", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    listing = verbs.add_parser("list", help="list the objects of SOURCE")
    listing.set_defaults(run=_list)
    orbits = verbs.add_parser(
        "orbits",
        help="render every object of SOURCE to DIR/<object>/<k>/",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    orbits.set_defaults(run=_orbits)
    depth = verbs.add_parser("depth", help="add depth maps to the orbits of SOURCE that DIR holds")
    depth.set_defaults(run=_depth)
    depth.add_argument("--out", metavar="DIR", type=Path, required=True, help="where the orbit folders are")
    for verb in (listing, orbits, depth):
        verb.add_argument(
            "source", metavar="SOURCE", type=Path, help="mesh file, library, game data, or a folder of them"
        )
    for verb in (listing, orbits):
        verb.add_argument(
            "--skins-per-shape",
            type=int,
            metavar="N",
            help="at most N objects that differ in their skin alone; all if not given",
        )
    plain = Settings()
    orbits.add_argument(
        "--out", metavar="DIR", type=Path, required=True, help="where the orbit folders and the manifest go"
    )
    orbits.add_argument("--num-orbits", type=int, default=1, help="orbits per object")
    orbits.add_argument("--num-views", type=int, default=plain.num_views, help="views per orbit")
    orbits.add_argument("--size", type=int, default=plain.size_px, help="width and height in pixels")
    orbits.add_argument("--seed", type=int, default=plain.seed, help="draws lights, elevations and yaws")
    orbits.add_argument(
        "--elevation",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        default=(plain.elevation_low_deg, plain.elevation_high_deg),
        help="range of the orbits' elevations in degrees",
    )
    orbits.add_argument(
        "--yaw", type=float, help="turn every object by this many degrees; drawn per orbit if not given"
    )
    for verb in (orbits, depth):
        verb.add_argument("--workers", type=int, help="processes; one per core if not given")
        verb.add_argument("--timeout", type=float, default=300.0, metavar="SECONDS", help="time limit per orbit")
    return parser


def _objects(options: argparse.Namespace) -> list[SourceObject]:
    objects = find_objects(options.source)
    if options.skins_per_shape is None:
        return objects
    if options.skins_per_shape < 1:
        raise Mv3dError("--skins-per-shape must be positive")
    return limit_skins(objects, options.skins_per_shape)


def _list(options: argparse.Namespace) -> int:
    for item in _objects(options):
        print("\t".join((item.object_id, item.name, item.category or "-", item.licence or "-")))
    return 0


def _orbits(options: argparse.Namespace) -> int:
    if options.num_orbits < 1 or (options.workers is not None and options.workers < 1) or options.timeout <= 0:
        raise Mv3dError("--num-orbits, --workers and --timeout must be positive")
    settings = Settings(
        num_views=options.num_views,
        size_px=options.size,
        seed=options.seed,
        elevation_low_deg=options.elevation[0],
        elevation_high_deg=options.elevation[1],
        yaw_deg=options.yaw,
    )
    entries = render_sources(
        _objects(options),
        options.out,
        settings,
        num_orbits=options.num_orbits,
        workers=options.workers,
        timeout_s=options.timeout,
    )
    splits = Counter(entry.split for entry in entries if entry.orbits)
    sides = ", ".join(f"{splits[side]} {side}" for side in ("train", "val", "test"))
    print(f"{sum(splits.values())} objects rendered ({sides}); see {options.out / 'manifest.jsonl'}")
    reasons = Counter(entry.failed.split(":")[0] for entry in entries if entry.failed is not None)
    for reason, count in reasons.most_common():
        print(f"{count} not rendered: {reason}")
    return 0


def _depth(options: argparse.Namespace) -> int:
    from render.depth import add_depth

    failed = add_depth(find_objects(options.source), options.out, workers=options.workers, timeout_s=options.timeout)
    for object_id, reason in failed.items():
        print(f"{object_id}: {reason}", file=sys.stderr)
    return 1 if failed else 0


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)
    sys.exit(main())
