"""The lowest tested versions are the lowest that pyproject.toml allows."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

REPO = Path(__file__).resolve().parents[1]
# .ci/run installs the lowest versions of these extras only.
EXTRAS = ("serve", "evaluation", "encryption")
# Built or pinned elsewhere, so a constraint could not lower them.
PINNED = {"chroma-hnswlib", "facecore"}


def project() -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((REPO / "pyproject.toml").read_text("utf-8"))["project"]
    return table


def pinned() -> dict[str, str]:
    lines = (REPO / "tests/lowest.txt").read_text("utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def floors(requirements: list[str]) -> dict[str, str]:
    parsed = [Requirement(line) for line in requirements]
    return {
        one.name: next(s.version for s in one.specifier if s.operator == ">=")
        for one in parsed
        if one.name not in PINNED
    }


def test_each_floor_is_tested() -> None:
    table = project()
    wanted = floors(table["dependencies"])
    for extra in EXTRAS:
        wanted |= floors(table["optional-dependencies"][extra])
    tools = floors(table["optional-dependencies"]["dev"])
    wanted |= {name: tools[name] for name in pinned() if name in tools}
    assert pinned().keys() == wanted.keys()
    for name, version in wanted.items():
        assert f"{pinned()[name]}.".startswith(f"{version}."), name


def test_hnswlib_comes_once() -> None:
    """Both packages install the module, so each platform gets exactly one of them."""
    table = project()
    wheels = [Requirement(r) for r in table["dependencies"] if r.startswith("chroma-hnswlib")]
    sources = [Requirement(r) for r in table["optional-dependencies"]["hnsw"]]
    platforms = {
        "linux": ("x86_64", "aarch64", "armv7l", "riscv64"),
        "darwin": ("x86_64", "arm64"),
        "win32": ("AMD64", "ARM64"),
    }
    for system, machines in platforms.items():
        for machine in machines:
            for python in ("3.11", "3.12", "3.13"):
                here = {
                    "sys_platform": system, "platform_machine": machine, "python_version": python,
                }  # fmt: skip
                found = {one.name for one in wheels + sources if one.marker.evaluate(here)}  # type: ignore[union-attr]
                assert len(found) == 1, (here, found)
