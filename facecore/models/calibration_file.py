"""Calibration tables as TOML: manifest sections and calibration files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from facecore._utils import atomic_files
from facecore.errors import InvalidParameter, PackCorrupt
from facecore.models.compatibility import CONTRACT
from facecore.models.schema import is_pack_name, parse, read_toml, require
from facecore.models.specs import CalibrationSpec

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "CalibrationFile",
    "calibration_lines",
    "check_writable",
    "read_calibration",
    "write_calibration",
]


@dataclass(frozen=True, slots=True)
class CalibrationFile:
    """Calibration tables that a user measured for one contract.

    Parameters
    ----------
    format : int
        1.
    facecore : str
        Version of facecore that measured the tables.
    pack : str
        Name of the measured pack, for information; `contract` identifies it.
    contract : str
        Identifier of the vector space of the measured similarities.
    calibration : CalibrationSpec
        Photos against photos.
    id_portrait_calibration : CalibrationSpec, optional
        Portraits from an identity card's chip against photos.
    """

    format: int
    facecore: str
    pack: str
    contract: str
    calibration: CalibrationSpec
    id_portrait_calibration: CalibrationSpec | None = None

    def __post_init__(self) -> None:
        require(self.format == 1, "format", "must be 1; a newer facecore may know this one")
        require(bool(self.facecore.strip()), "facecore", "must not be empty")
        require(is_pack_name(self.pack), "pack", "must be lower-case letters, digits, _ and -")
        is_contract = CONTRACT.fullmatch(self.contract) is not None
        require(is_contract, "contract", "must be c1- and 16 hexadecimal digits")


def read_calibration(path: Path) -> CalibrationFile:
    """Read and check a file written by `write_calibration`.

    Raises
    ------
    InvalidParameter
        The file is invalid; the message names the file and the field.
    """
    hint = "give a file that facecore calibrate wrote, or measure again"
    try:
        return parse(CalibrationFile, read_toml(path), path)
    except PackCorrupt as error:
        raise InvalidParameter(error.message, hint) from error
    except ValueError as error:  # a NUL in the path
        raise InvalidParameter(f"{path!r} cannot be read: {error}", hint) from error


def check_writable(path: Path) -> None:
    """Check before a long measurement that its result can be written.

    Creates missing folders.

    Raises
    ------
    InvalidParameter
        As `write_calibration` would.
    """
    atomic_files.make_folder(path.parent)
    atomic_files.check_writable(path)


def write_calibration(path: Path, content: CalibrationFile) -> None:
    """Write a calibration file atomically, replacing an existing one.

    Creates missing folders.

    Raises
    ------
    InvalidParameter
        The file cannot be written.
    """
    lines = [
        f"format = {content.format}",
        f"facecore = {_text(content.facecore)}",
        f"pack = {_text(content.pack)}",
        f"contract = {_text(content.contract)}",
        "",
        *calibration_lines("calibration", content.calibration),
    ]
    if content.id_portrait_calibration is not None:
        lines.append("")
        lines += calibration_lines("id_portrait_calibration", content.id_portrait_calibration)
    atomic_files.make_folder(path.parent)
    atomic_files.write_whole(path, ("\n".join(lines) + "\n").encode())


def calibration_lines(section: str, spec: CalibrationSpec) -> list[str]:
    """Return the TOML lines of a table under the heading `section`."""
    lines = [
        f"[{section}]",
        f"dataset = {_text(spec.dataset)}",
        f"method = {_text(spec.method)}",
        f"identities = {spec.identities}",
        f"genuine = {spec.genuine}",
        f"impostor = {spec.impostor}",
        f"tail = {_text(spec.tail)}",
        f"tail_scale = {spec.tail_scale!r}",
    ]
    if spec.embedder is not None:
        lines.append(f"embedder = {_text(spec.embedder)}")
    lines.append("knots = [")
    for knot in spec.knots:
        fields = ", ".join(
            f"{name} = {getattr(knot, name)!r}"
            for name in ("score", "far", "similarity", "low", "high")
        )
        if not knot.measured:
            fields += ", measured = false"
        if (fnmr := knot.fnmr) is not None:
            fields += (
                f", fnmr = {{ value = {fnmr.value!r}, low = {fnmr.low!r}, high = {fnmr.high!r} }}"
            )
        lines.append(f"  {{ {fields} }},")
    return [*lines, "]"]


def _text(value: str) -> str:
    """Return a TOML string (same escapes as JSON), with "?" for each unprintable character."""
    shown = "".join(character if character.isprintable() else "?" for character in value)
    return json.dumps(shown, ensure_ascii=False)
