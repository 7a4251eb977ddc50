"""0 A.D.'s actors: which meshes and pictures make an object, after choices between variants."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import dataclass, field
from math import isfinite, nan

from render.errors import Unusable

_DEEPEST = 6  # props of props


@dataclass
class Actor:
    """An actor with its variants chosen."""

    mesh: str | None = None
    texture: str | None = None
    material: str = "default.xml"
    colour: tuple[int, int, int] = (255, 255, 255)
    props: dict[str, list[str]] = field(default_factory=dict)
    """Actors that hang on it, by the name of their place."""


def read_actor(path: str, read: Callable[[str], bytes]) -> Actor:
    """Read ``art/actors/<path>`` and take the most frequent variant of every group, as the game most often does.

    Args:
        path: of the actor, inside art/actors.
        read: returns a file of the game's data by its path.

    Raises:
        Unusable: if the file or a variant it refers to is missing or damaged.
    """
    root = _parse(f"art/actors/{path}", read)
    if root.tag == "qualitylevels":
        inline = root.find("inline")
        levels = [level.get("file") for level in root.iter("actor") if level.get("file")]
        if inline is None and levels:
            return read_actor(str(levels[-1]), read)
        root = inline if inline is not None else root
    actor = Actor(material=(root.findtext("material") or "default.xml").strip())
    for group in root.findall("group"):
        variants = [_with_parent(variant, read) for variant in group.findall("variant")]
        if variants:
            _apply(max(variants, key=lambda layers: _number(layers[-1].get("frequency") or "0", path)), actor, path)
    return actor


def _with_parent(variant: ElementTree.Element, read: Callable[[str], bytes]) -> list[ElementTree.Element]:
    """A variant after the file it builds upon."""
    layers = [variant]
    for _ in range(_DEEPEST):
        file = layers[0].get("file")
        if not file:
            break
        parent = _parse(f"art/variants/{file}", read)
        if "frequency" in parent.attrib and "frequency" not in variant.attrib:
            variant.set("frequency", parent.attrib["frequency"])
        layers.insert(0, parent)
    return layers


def _apply(layers: list[ElementTree.Element], actor: Actor, path: str) -> None:
    for layer in layers:
        actor.mesh = (layer.findtext("mesh") or "").strip() or actor.mesh
        for texture in layer.iter("texture"):
            if texture.get("name") == "baseTex":
                actor.texture = texture.get("file") or actor.texture
        colour = (layer.findtext("color") or "").split()
        if len(colour) == 3:
            red, green, blue = (min(max(round(_number(part, path)), 0), 255) for part in colour)
            actor.colour = (red, green, blue)
        props = [(prop.get("attachpoint") or "root", prop.get("actor") or "") for prop in layer.iter("prop")]
        for place, _ in props:
            actor.props.pop(place, None)
        for place, name in props:
            if name:
                actor.props.setdefault(place, []).append(name)


def _number(text: str, path: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = nan
    if not isfinite(number):
        raise Unusable(f"{path} has {text[:20]!r} where a number should be")
    return number


def _parse(path: str, read: Callable[[str], bytes]) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(read(path))
    except (KeyError, ElementTree.ParseError) as error:
        raise Unusable(f"{path} is missing or damaged: {error}") from error
