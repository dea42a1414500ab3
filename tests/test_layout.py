"""Imports inside facecore point down its floors, and never in a circle.

Every import counts: at the top of a file, inside a function, or for type checkers only.  The name
of a module in a string counts too, because lazy imports use it.  The name of a package in a string
does not count, because loggers have such names.
"""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import facecore

ROOT = Path(facecore.__file__).parent

# From the ground up.  Rooms on one floor may import each other if that makes no circle.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors", "_version"),
    ("_utils",),
    ("images", "models"),
    ("face",),
    ("matching", "drawing"),
    ("pipeline",),
    ("engine",),
    ("gallery",),
    ("collections", "evaluation", "operations"),
    ("",),  # facecore/__init__.py: the public names
    ("cli", "server", "demo"),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("facecore", *parts)).removesuffix(".__init__")


def arrows() -> dict[str, set[str]]:
    """Map each module to the modules of facecore that it imports."""
    paths = {module_name(path): path for path in ROOT.rglob("*.py")}
    files = {name for name, path in paths.items() if path.name != "__init__.py"}
    found: dict[str, set[str]] = {}
    for name, path in paths.items():
        targets = found[name] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                targets |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{name} has a relative import"
                for alias in node.names:
                    inner = f"{node.module}.{alias.name}"
                    targets.add(inner if inner in paths else str(node.module))
            elif isinstance(node, ast.Constant) and node.value in files:
                targets.add(node.value)
        found[name] = {target for target in targets if target in paths} - {name}
    return found


def floor(module: str) -> int:
    return FLOOR[module.removeprefix("facecore").removeprefix(".").partition(".")[0]]


def test_no_circle() -> None:
    try:
        TopologicalSorter(arrows()).prepare()
    except CycleError as error:
        raise AssertionError(f"circle: {' <- '.join(error.args[1])}") from error


def test_no_import_points_up() -> None:
    up = [
        f"{module} -> {target}"
        for module, targets in arrows().items()
        for target in targets
        if floor(target) > floor(module)
    ]
    assert up == []


def test_the_check_sees_imports() -> None:
    found = arrows()
    assert "facecore.pipeline" in found["facecore.engine"]
    assert "facecore.gallery.index.hnsw" in found["facecore.gallery.index"]  # inside a function
    assert "facecore.face.liveness" in found["facecore.engine"]  # a string, and for type checkers
    assert "facecore.gallery.gallery" in found["facecore"]
