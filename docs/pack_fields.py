"""Write the field reference of pack.toml into docs/own-models.md, from the code that reads it.

    python docs/pack_fields.py

The fields, their types and whether they may be left out come from the dataclasses of
facecore.models.manifest and facecore.models.specs, the texts from their docstrings.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path

from facecore.models.compatibility import InterchangeSpec, MixedRate
from facecore.models.manifest import (
    AttributesSpec,
    DetectorSpec,
    EmbedderSpec,
    LivenessSpec,
    Manifest,
    ModelFile,
)
from facecore.models.specs import (
    AttributesOutput,
    CalibrationSpec,
    CueModel,
    DetectorOutput,
    EmbedderOutput,
    InputSpec,
    Knot,
    LivenessOutput,
    MeasuredRate,
    RecognizabilitySpec,
)

PAGE = Path(__file__).with_name("own-models.md")
BEGIN, END = "<!-- fields: begin -->", "<!-- fields: end -->"

SECTIONS: list[tuple[str, type]] = [
    ("at the top", Manifest),
    ("each of `[detector]`, `[embedder]`, `[liveness]` and `[attributes]`", ModelFile),
    ("`[detector]` also", DetectorSpec),
    ("`[detector.output]`", DetectorOutput),
    ("`[embedder]` also", EmbedderSpec),
    ("`[embedder.output]`", EmbedderOutput),
    ("`[detector.input]`, `[embedder.input]` and the other inputs", InputSpec),
    ("`[embedder.calibration]` and `[embedder.id_portrait_calibration]`", CalibrationSpec),
    ("each of `knots`", Knot),
    ("`fnmr` of a knot", MeasuredRate),
    ("`[embedder.recognizability]`", RecognizabilitySpec),
    ("`[embedder.interchange]`", InterchangeSpec),
    ("each of `rates`", MixedRate),
    ("`[liveness]` also", LivenessSpec),
    ("`[liveness.output]`", LivenessOutput),
    ("`[liveness.cues]`", CueModel),
    ("`[attributes]` also", AttributesSpec),
    ("`[attributes.output]`", AttributesOutput),
]


def reference() -> str:
    """The tables, a section each; fields that share a text share a row."""
    lines: list[str] = []
    common = {field.name for field in dataclasses.fields(ModelFile)}
    for title, kind in SECTIONS:
        lines += [f"### {title[0].upper()}{title[1:]}", ""]
        lines += ["| field | type | meaning |", "|---|---|---|"]
        told = _texts(kind)
        rows: dict[tuple[str, str], list[str]] = {}
        for field in dataclasses.fields(kind):
            if kind is ModelFile or field.name not in common:
                text, choices = told[field.name]
                default = (field.default, field.default_factory) != (dataclasses.MISSING,) * 2
                what = choices or _type(str(field.type))
                row = what + (", optional" if default else ""), text
                rows.setdefault(row, []).append(f"`{field.name}`")
        lines += [
            f"| {', '.join(names)} | {what} | {text} |" for (what, text), names in rows.items()
        ]
        lines.append("")
    return "\n".join(lines)


def _type(annotation: str) -> str:
    plain = annotation.removesuffix(" | None")
    names = {"str": "string", "int": "integer", "float": "number", "bool": "true or false"}
    if plain.startswith("tuple["):
        inner = plain.removeprefix("tuple[").removesuffix("]").split(",")[0]
        return f"array of {names.get(inner, 'table')}s"
    return names.get(plain, "table")


def _texts(kind: type) -> dict[str, tuple[str, str]]:
    """Field -> its text in the docstring, and the values that it may have where they are listed."""
    told: dict[str, tuple[str, str]] = {}
    for owner in reversed(kind.__mro__[:-1]):
        parts = inspect.getdoc(owner) or ""
        section = re.search(r"Parameters\n-+\n(.*?)(?:\n\n\w+\n-+\n|\Z)", parts, re.DOTALL)
        for block in re.split(r"\n(?=\S)", section[1] if section else ""):
            names, _, text = block.partition("\n")
            text = " ".join(text.split()).replace("``", "`").replace("|", "\\|")
            heads, _, values = names.partition(":")
            choices = re.search(r"\{(.*)\}", values)
            listed = choices[1].replace('"', "`").replace(", ", " or ") if choices else ""
            for name in heads.split(","):
                told[name.strip()] = text, listed
    return told


def page_with(text: str) -> str:
    """The page with these tables between its markers."""
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n\n{text}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    PAGE.write_text(page_with(reference()), encoding="utf-8")
