"""What the whole house keeps to, read off its source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
COMMAND = re.compile(r"(python -m|pip install|torchrun|mv3d (orbit|lift|export)) [^;]*")
FLAG = re.compile(r"(?<![\w-])--[a-z]")


@cache
def nodes_of(path: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def modules(*rooms: str) -> Iterator[tuple[Path, tuple[ast.AST, ...]]]:
    for room in rooms:
        for path in sorted((ROOT / room).rglob("*.py")):
            yield path.relative_to(ROOT), nodes_of(path)


def test_a_class_name_stands_for_one_thing():
    """A reader who searches for a class finds one."""
    places: dict[str, list[str]] = {}
    for path, nodes in modules("mv3d", "render", "finetune", "eval", "benchmarks", "examples"):
        for node in nodes:
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(f"{path}:{node.lineno}")
    assert len(places) > 100
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def text_of(node: ast.expr) -> str:
    """The words of a string or an f-string, without what is put into it."""
    return "".join(part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and type(part.value) is str)


def names_in(nodes: tuple[ast.AST, ...]) -> Iterator[str]:
    """What variables, attributes, parameters, functions and the keys of metrics are called."""
    for node in nodes:
        match node:
            case ast.Name(id=str(name)) | ast.Attribute(attr=str(name)) | ast.arg(arg=str(name)):
                yield name
            case ast.FunctionDef(name=name) | ast.keyword(arg=str(name)) | ast.Constant(value=str(name)):
                yield name


def test_things_are_called_by_the_words_of_the_field():
    """`told` was a prediction here, an injected feature there, and an error message elsewhere (docs/glossary.md)."""
    words = "told|retold|tell|alone|lesson|doubt|complete|figures|legs?|nets|contest|survey|critic"
    private = re.compile(rf"_*(\w+_)?({words})(_\w+)?", re.IGNORECASE)
    found = {
        f"{path}: {name}"
        for path, nodes in modules("mv3d", "render", "finetune", "eval", "benchmarks", "examples")
        for name in names_in(nodes)
        if private.fullmatch(name)
    }
    assert found == {"mv3d/model/feature_net.py: tell"}  # a part of the keys of weights that are out in the world


def test_no_error_names_an_option_of_the_command_line():
    """A library's caller has parameters. The command line adds its own word (`mv3d.command_line.print_error`)."""
    messages = [
        (f"{path}:{node.lineno}", text_of(node.args[0]))
        for path, nodes in modules("mv3d", "render", "finetune", "eval")
        for node in nodes
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Mv3dError" and node.args
    ]
    assert len(messages) > 100
    assert [where for where, message in messages if FLAG.search(COMMAND.sub("", message))] == []
