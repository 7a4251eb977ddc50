"""``python -m render``: turn objects into posed orbits, and look after what came out."""

from __future__ import annotations

import argparse
import signal
import sys
from collections import Counter

from mv3d.blender import find_blender
from mv3d.errors import Mv3dError
from render.farm.farm import render_sources, shard_of
from render.options import make_parser, parse_shard, settings_of
from render.sources import SourceObject, find_objects, limit_skins
from render.sources.group import grouped
from render.sources.selection import choose, in_grey, licensed, on_sides


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code (2 for a mistake of the user's, told in one line)."""
    verbs = {"list": _list, "orbits": _orbits, "sheet": _sheet, "pack": _pack, "curate": _curate, "depth": _depth}
    options = make_parser(verbs, __doc__).parse_args(arguments)
    try:
        return options.run(options)
    except Mv3dError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130


def _objects(options: argparse.Namespace) -> list[SourceObject]:
    if options.skins_per_shape is not None and options.skins_per_shape < 1:
        raise Mv3dError("--skins-per-shape must be positive")
    objects = find_objects(options.source)
    objects = objects if options.split is None else on_sides(objects, options.split)
    objects = objects if options.licence is None else licensed(objects, options.licence)
    objects = in_grey(objects) if options.grey else objects
    objects = objects if options.skins_per_shape is None else limit_skins(objects, options.skins_per_shape)
    objects = choose(objects, options.only, options.limit)
    return objects if options.group is None else grouped(objects, options.group, seed=0)


def _list(options: argparse.Namespace) -> int:
    for item in _objects(options):
        print("\t".join((item.object_id, item.name, item.category or "-", item.licence or "-")))
    return 0


def _orbits(options: argparse.Namespace) -> int:
    if options.num_orbits < 1 or (options.workers is not None and options.workers < 1) or options.timeout <= 0:
        raise Mv3dError("--num-orbits, --workers and --timeout must be positive")
    settings, manifest = settings_of(options), "manifest.jsonl"
    if settings.renderer == "cycles" and options.ray is None:
        find_blender()  # one line now instead of one for every object
    objects = _objects(options)
    if options.shard is not None:
        index, count = parse_shard(options.shard)
        objects, manifest = shard_of(objects, index, count), f"manifest-{index}-of-{count}.jsonl"
    if options.dry_run:
        from render.farm.estimate import estimate

        price = estimate(
            objects, settings, num_orbits=options.num_orbits, workers=options.workers, timeout_s=options.timeout
        )
        print(price)
        return 0
    entries = render_sources(
        objects,
        options.out,
        settings,
        num_orbits=options.num_orbits,
        workers=options.workers,
        timeout_s=options.timeout,
        ray_address=options.ray,
        manifest_name=manifest,
    )
    splits = Counter(entry.split for entry in entries if entry.orbits)
    sides = ", ".join(f"{splits[side]} {side}" for side in ("train", "val", "test"))
    print(f"{sum(splits.values())} objects rendered ({sides}); see {options.out / manifest}")
    reasons = Counter(entry.failed.split(":")[0] for entry in entries if entry.failed is not None)
    for reason, count in reasons.most_common():
        print(f"{count} not rendered: {reason}")
    if not objects:  # no mistake: a job array may have more tasks than there are objects
        print(f"share {options.shard} has no object", file=sys.stderr)
    return 0 if splits or not objects else 1


def _sheet(options: argparse.Namespace) -> int:
    from render.collection import iter_orbits
    from render.sheet import save_objects_sheet

    count = save_objects_sheet(iter_orbits(options.place), options.out, most=options.most)
    print(f"{options.out}: {count} objects")
    return 0


def _pack(options: argparse.Namespace) -> int:
    from render.collection import pack

    if options.per_shard < 1:
        raise Mv3dError("--per-shard must be positive")
    for path in pack(options.place, options.out, per_shard=options.per_shard):
        print(path)
    return 0


def _curate(options: argparse.Namespace) -> int:
    from render.curation.curation import curate

    for line in curate(options.place, options.rules):
        print(line)
    return 0


def _depth(options: argparse.Namespace) -> int:
    from render.farm.depth import add_depth

    failed = add_depth(_objects(options), options.out, workers=options.workers, timeout_s=options.timeout)
    for object_id, reason in failed.items():
        print(f"{object_id}: {reason}", file=sys.stderr)
    return 1 if failed else 0


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)
    sys.exit(main())
