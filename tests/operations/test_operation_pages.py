"""The pages of the operations: their examples run, and their tables name every parameter."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from operations.symbols import Symbols

from facecore import FaceEngine, Gallery
from facecore.operations import CODES, FaceService, tables
from facecore.operations.parameters import Parameter, PictureParameter

PAGES = Path(__file__).resolve().parents[2] / "docs/operations"

TABLES: dict[str, tuple[Parameter | PictureParameter, ...]] = {
    "face_compare": tables.FACE_COMPARE,
    "cross_compare": tables.CROSS_COMPARE,
    "duplication_check": tables.DUPLICATION_CHECK,
    "add_face_record": tables.ADD_FACE_RECORD,
    "compare_faces": (*tables.COMPARE_FACES_TYPES, *tables.COMPARE_FACES_VALUES),
    "groups": (
        *tables.CREATE_FACE_GROUP,
        *tables.QUERY_FACE_GROUP,
        *tables.MODIFY_FACE_GROUP,
        *tables.DELETE_FACE_GROUP,
        *tables.QUERY_FACE_RECORD,
        *tables.DELETE_FACE_RECORD,
        *tables.DELETE_FACE_RECORD_V2,
    ),
}


def _examples(page: str) -> list[str]:
    text = (PAGES / f"{page}.md").read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def _is_vendors(example: str) -> bool:
    return "alibabacloud" in example


@pytest.mark.parametrize("page", ["README", *TABLES])
def test_examples(
    page: str,
    service: FaceService,
    gallery: Gallery,
    engine: FaceEngine,
    symbols: Symbols,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, symbol in (("alice", "@alice1"), ("alice2", "@alice2"), ("bob", "@bob1")):
        Path(f"{name}.jpg").write_bytes(symbols.data(symbol))
    names: dict[str, object] = {"service": service, "gallery": gallery, "engine": engine}
    examples = [example for example in _examples(page) if not _is_vendors(example)]
    assert examples
    for example in examples:
        exec(compile(example, f"{page}.md", "exec"), names)
    if page == "README":
        made = names["gallery"]
        assert isinstance(made, Gallery)
        made.close()


@pytest.mark.parametrize("page", TABLES)
def test_examples_with_the_vendors_client(page: str) -> None:
    """Every attribute that an example sets exists in the request model."""
    models = {
        "2022": pytest.importorskip("alibabacloud_cloudauth_intl20220809.models"),
        "2019": pytest.importorskip("alibabacloud_cloudauth20190307.models"),
    }
    (example,) = filter(_is_vendors, _examples(page))
    module = models["2019" if "20190307" in example else "2022"]
    calls = [
        node
        for node in ast.walk(ast.parse(example))
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("models.")
    ]
    assert calls
    for call in calls:
        known = vars(getattr(module, ast.unparse(call.func).removeprefix("models."))())
        assert {keyword.arg for keyword in call.keywords} <= known.keys()


@pytest.mark.parametrize("page", TABLES)
def test_every_parameter_is_named(page: str) -> None:
    text = (PAGES / f"{page}.md").read_text(encoding="utf-8")
    for row in TABLES[page]:
        names = (row.name,) if isinstance(row, Parameter) else (row.text, row.url, *row.files)
        for name in filter(None, names):
            assert re.search(rf"\b{name}\b", text), name


def test_every_code_is_named() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in PAGES.glob("*.md"))
    assert [name for name in CODES if name not in text] == []


def test_the_tables_know_what_the_vendors_client_sends() -> None:
    models = pytest.importorskip("alibabacloud_cloudauth_intl20220809.models")
    requests = {
        "face_compare": models.FaceCompareRequest,
        "cross_compare": models.FaceCrossCompareIntlRequest,
        "duplication_check": models.FaceDuplicationCheckIntlRequest,
        "add_face_record": models.AddFaceRecordRequest,
    }
    for page, request in requests.items():
        wire = set(re.findall(r"result\['(\w+)'\]", _source(request)))
        rows = TABLES[page]
        known = {row.name for row in rows if isinstance(row, Parameter)}
        for row in rows:
            if isinstance(row, PictureParameter):
                known |= {row.text, row.url, *row.files}
        assert wire, page
        assert wire <= known, page
        # Only our stream is not in that request, because the client uploads it elsewhere.
        assert known - wire <= {"FacePictureFileObject"}, page


def _source(model: object) -> str:
    import inspect

    return inspect.getsource(model.to_map)  # type: ignore[attr-defined]
