"""Conformance cases: build real requests from symbolic ones, and check the answers.

`run_case` takes the call as an argument, so the same cases run in process and through a client.
"""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from facecore import Gallery

from .addresses import PictureServer
from .symbols import Symbols

Body = Mapping[str, Any]
Call = Callable[[str, dict[str, Any]], tuple[int, Body]]


def load_cases(path: Path) -> list[dict[str, Any]]:
    """Return all conformance cases of a file."""
    cases: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["cases"]
    return cases


class Requests:
    """Builds real requests from symbolic ones."""

    def __init__(self, symbols: Symbols, server: PictureServer) -> None:
        self.symbols = symbols
        self.server = server

    def build(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return parameters as a client gives them; a stream is an open binary file."""
        return {name: self._value(value) for name, value in request.items()}

    def _value(self, value: object) -> object:
        if not isinstance(value, str):
            return value
        if match := re.fullmatch(r"@url:(timeout|refused|404)", value):
            return self.server.special(match[1])
        if match := re.fullmatch(r"@url\((@[^)]+)\)(/.*)?", value):
            return self.server.url(self.symbols.data(match[1]), match[2] or "")
        if match := re.fullmatch(r"@stream\((@[^)]+)\)", value):
            return io.BytesIO(self.symbols.data(match[1]))
        if match := re.fullmatch(r"(base64://)?(@[a-z_0-9]+[^|]*)(?:\|(\w+))?", value):
            prefix, symbol, form = match.groups()
            return (prefix or "") + _text(self.symbols.data(symbol), form)
        return value


def _text(data: bytes, form: str | None) -> str:
    text = base64.b64encode(data).decode("ascii")
    if form == "plus_to_space":
        return text.replace("+", " ")
    if form == "mime":
        return "\n".join(text[at : at + 76] for at in range(0, len(text), 76))
    return text  # raw64: without the prefix that belongs there


def prepare(gallery: Gallery, given: Mapping[str, Any], symbols: Symbols) -> None:
    """Create the groups of a case and enrol their people."""
    for code, people in given.get("groups", {}).items():
        gallery.create_group(code)
        for person in people:
            face = symbols.face(gallery.engine, person["image"])
            gallery.add(code, face, person["MerchantUserId"])


def run_case(case: Mapping[str, Any], requests: Requests, call: Call) -> list[str]:
    """Send a case and its follow-ups; return the failures in words."""
    failures: list[str] = []
    first: Body = {}
    for number, step in enumerate([case, *case.get("then", ())]):
        status, body = call(step["operation"], requests.build(step["request"]))
        first = first or body
        wrong = evaluate(step["expect"], status, body, first)
        failures += [f"step {number}: {text}" for text in wrong]
    return failures


def evaluate(expect: Mapping[str, Any], status: int, body: Body, first: Body) -> list[str]:
    """Compare one answer with what a case expects; return the failures in words.

    `first` is the body of the case's first answer.
    """
    failures = []
    if status not in _listed(expect["http_status"]):
        failures.append(f"HTTP status {status}, not {expect['http_status']}")
    if "code" in expect and body.get("Code") not in _listed(expect["code"]):
        failures.append(f"Code {body.get('Code')!r}, not {expect['code']!r}: {body.get('Message')}")
    for name, value in expect.get("result", {}).items():
        if (found := at(body, f"Result.{name}")) != value:
            failures.append(f"Result.{name} is {found!r}, not {value!r}")
    for path in expect.get("absent", ()):
        if at(body, path) is not None:
            failures.append(f"{path} is {at(body, path)!r}, must be absent")
    for path, op, *argument in expect.get("predicates", ()):
        value = at(body, path)
        try:
            holds = PREDICATES[op](value, *argument, body=body, path=path, first=first)
        except (TypeError, ValueError, LookupError) as error:
            failures.append(f"{path} = {value!r}: {op} {argument}: {error!r}")
            continue
        if not holds:
            failures.append(f"{path} = {value!r} is not {op} {argument}")
    return failures


def at(value: Any, path: str) -> Any:
    """Return the member at a dotted path, or None."""
    for key in path.split("."):
        if isinstance(value, Mapping):
            value = value.get(key)
        elif isinstance(value, list) and key.isdigit() and int(key) < len(value):
            value = value[int(key)]
        else:
            return None
    return value


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _threshold(body: Body, rate: str) -> float:
    return float(json.loads(at(body, "Data.ConfidenceThresholds"))[rate])


def _type(value: Any, name: str, **_: Any) -> bool:
    kinds: dict[str, Any] = {"string": str, "number": (int, float)}
    return isinstance(value, kinds[name]) and not isinstance(value, bool)


PREDICATES: dict[str, Callable[..., bool]] = {
    "present": lambda v, *_, **__: v not in (None, ""),
    "eq": lambda v, other, **_: bool(v == other),
    "matches": lambda v, pattern, **_: bool(re.fullmatch(pattern, v)),
    "type": _type,
    "len": lambda v, count, **_: len(v) == count,
    "num_eq": lambda v, number, **_: float(v) == number,
    "num_between": lambda v, ends, **_: ends[0] <= float(v) <= ends[1],
    "absent_or_num": lambda v, number, **_: v is None or float(v) == number,
    "absent_or_matches": lambda v, pattern, **_: v is None or bool(re.fullmatch(pattern, v)),
    "csv_set": lambda v, names, **_: set(v.split(",")) == set(names),
    "json_len": lambda v, count, **_: len(json.loads(v)) == count,
    "json_at": lambda v, a, **_: bool(at(json.loads(v), a[0]) == a[1]),
    "json_at_matches": lambda v, a, **_: bool(re.fullmatch(a[1], at(json.loads(v), a[0]))),
    "json_in": lambda v, a, **_: at(json.loads(v), a[0]) in a[1],
    "json_keys": lambda v, keys, **_: set(json.loads(v)) == set(keys),
    "json_values_type": lambda v, name, **_: all(_type(x, name) for x in json.loads(v).values()),
    "json_at_equals_first": lambda v, a, *, first, **_: bool(
        at(json.loads(v), a[0]) == at(first, a[1])
    ),
    "num_close_to_first": lambda v, by, *, first, path, **_: (
        abs(float(v) - float(at(first, path))) <= by
    ),
    "num_less_than_first": lambda v, *_, first, path, **__: float(v) < float(at(first, path)),
    "num_greater_than_first_at": lambda v, where, *, first, **_: float(v) > float(at(first, where)),
    "ge_threshold": lambda v, rate, *, body, **_: float(v) >= _threshold(body, rate),
    "lt_threshold": lambda v, rate, *, body, **_: float(v) < _threshold(body, rate),
    "thresholds_monotone": lambda _, *a, body, **__: (
        _threshold(body, "0.0001") > _threshold(body, "0.001") > _threshold(body, "0.01")
    ),
}
