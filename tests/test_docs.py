"""The pages: links resolve, commands and names exist, examples run."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import doctest
import importlib
import inspect
import io
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import facecore
import facecore.cli
import facecore.operations
from facecore.matching.calibration import Calibration

REPO = Path(__file__).resolve().parents[1]
FOLDERS = (
    "",
    "benchmarks",
    "benchmarks/everyday",
    "docs",
    "docs/api",
    "docs/operations",
    "weights",
    "weights/training",
)
PAGES = sorted(page for folder in FOLDERS for page in (REPO / folder).glob("*.md"))
# The changelog may name removed commands and names.
CHECKED = [page for page in PAGES if page.name != "CHANGELOG.md"]
MODULES = [
    ".".join(path.relative_to(REPO).with_suffix("").parts)
    for path in sorted((REPO / "facecore").rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]

# The variables of the examples.
CLASSES: dict[str, type] = {
    "engine": facecore.FaceEngine,
    "gallery": facecore.Gallery,
    "service": facecore.operations.FaceService,
    "quality": facecore.Quality,
    "sample": facecore.FaceSample,
    "match": facecore.Match,
    "face": facecore.Face,
    "error": facecore.FacecoreError,
    "Calibration": Calibration,
    **{
        name: value
        for module in (facecore, facecore.operations)
        for name in module.__all__
        if isinstance(value := getattr(module, name), type)
    },
}


def _name(page: Path) -> str:
    return str(page.relative_to(REPO))


def _blocks(page: Path, *languages: str) -> list[str]:
    """Return the fenced code in some languages."""
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```(?:{'|'.join(languages)})\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def _spans(page: Path) -> list[str]:
    """Return the inline code, on one line each."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]


def _commands(page: Path) -> Iterator[list[str]]:
    """Yield the simple commands of a page's shell blocks, split into words."""
    for block in _blocks(page, "sh", "bash", "ini"):
        for line in block.replace("\\\n", " ").replace("ExecStart=", "").splitlines():
            words: list[str] = []
            lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;")
            lexer.whitespace_split = True
            for word in [*lexer, ";"]:
                if word.strip("&|;"):
                    words.append(word)
                elif words:
                    yield words
                    words = []


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_page(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "@@" not in text
    assert not re.search(r"^[A-Z_]*FIGURES$", text, re.MULTILINE)
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", text)
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_benchmark_has_its_line() -> None:
    page = (REPO / "benchmarks" / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `python -m benchmarks (\w+)` \|", page, re.MULTILINE)
    assert listed == sorted(p.stem for p in (REPO / "benchmarks").glob("[!_]*.py"))


@pytest.mark.parametrize("page", CHECKED, ids=_name)
def test_commands_exist(page: Path) -> None:
    """Commands in blocks parse; commands in sentences exist and have these options."""
    for words in _commands(page):
        if Path(words[0]).name == "facecore":
            _parse(words[1:])
        else:
            _check_script(words, page)
    for span in _spans(page):
        words = span.split()
        if words[0] == "facecore":
            _check_options(words[1:])
        elif words[0] in ("python", "pytest"):
            _check_script(words, page)


def _parse(words: list[str]) -> None:
    status: object = 0
    try:
        facecore.cli._parser().parse_args(words)
    except SystemExit as done:
        status = done.code
    assert status == 0, words


def _check_options(words: list[str]) -> None:
    """Check that the help of a command like `facecore weights pull NAME` shows its options."""
    first = next((i for i, word in enumerate(words) if word.startswith("-")), len(words))
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), pytest.raises(SystemExit) as done:
        facecore.cli.main([*words[:first], "--help"])
    assert done.value.code == 0, words
    options = [word for word in words[first:] if word.startswith("--")]
    assert [option for option in options if option not in shown.getvalue()] == [], words


def _check_script(words: list[str], page: Path) -> None:
    """Check `python -m benchmarks NAME`, `python weights/training/x.py`, `pytest tests/x.py`."""
    text = " ".join(words)
    if match := re.match(r"(?:python -m )?pytest (tests/\S+)", text):
        assert (REPO / match[1]).exists(), text
        return
    if match := re.match(r"python -m benchmarks ([a-z]\w*)", text):
        script = REPO / "benchmarks" / f"{match[1]}.py"
    elif match := re.match(r"python (\w+/\S+\.py)", text):
        script = REPO / match[1]
    elif match := re.match(r"python (\w+\.py)", text):
        script = page.parent / match[1]
    else:
        return
    assert script.exists(), text
    files = [script, *script.parent.glob("_*.py")]
    source = "".join(path.read_text(encoding="utf-8") for path in files)
    options = [word for word in words if word.startswith("--") and word != "--help"]
    assert [option for option in options if f'"{option}"' not in source] == [], text


@pytest.mark.parametrize("page", CHECKED, ids=_name)
def test_names_exist(page: Path) -> None:
    for code in [*_blocks(page, "python"), *_spans(page)]:
        if re.fullmatch(r"(?:facecore|tests|benchmarks|weights|docs)/[\w./]+", code):
            assert "NAME" in code or (REPO / code).exists(), code
            continue
        if re.fullmatch(r"\w+\.(?:db|jsonl|npz|onnx|py|toml)", code):
            continue  # a file
        try:
            tree = ast.parse(code)
        except SyntaxError:
            continue
        for node in ast.walk(tree):
            _check_node(node)


def _check_node(node: ast.AST) -> None:
    if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("facecore"):
        for alias in node.names:
            _resolve(f"{node.module}.{alias.name}")
    elif isinstance(node, ast.Attribute):
        text = ast.unparse(node)
        if text.startswith("facecore."):
            _resolve(text)
        elif isinstance(node.value, ast.Name) and node.value.id in CLASSES:
            _member(CLASSES[node.value.id], node.attr)
    elif isinstance(node, ast.Call) and (called := _called(node.func)) is not None:
        known = inspect.signature(called).parameters
        given = {keyword.arg for keyword in node.keywords}
        assert given <= set(known), ast.unparse(node)


def _called(node: ast.expr) -> Any:
    """Return the called function or class, or None if it is not facecore's."""
    text = ast.unparse(node)
    if text.startswith("facecore."):
        return _resolve(text)
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return getattr(CLASSES.get(node.value.id), node.attr, None)
    if text in CLASSES:
        return CLASSES[text]
    methods = (getattr(kind, text, None) for kind in (facecore.FaceEngine, facecore.Gallery))
    return next(filter(None, methods), None)


def _resolve(dotted: str) -> Any:
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            found = _member(found, part)
        return found
    raise AssertionError(dotted)


def _member(owner: Any, name: str) -> Any:
    """Return an attribute; a field or a name in the docstring of a class is enough."""
    if hasattr(owner, name):
        return getattr(owner, name)
    fields = {field.name for field in dataclasses.fields(owner)} if _is_data(owner) else set()
    told = re.search(rf"^\s*(?:\w+, )*{name}(?:, \w+)* : ", owner.__doc__ or "", re.MULTILINE)
    assert name in fields or told, f"{owner.__name__} has no {name}"
    return None


def _is_data(owner: Any) -> bool:
    return isinstance(owner, type) and dataclasses.is_dataclass(owner)


def test_the_architecture_page_names_every_room() -> None:
    page = (REPO / "docs/architecture.md").read_text(encoding="utf-8")
    package = Path(facecore.__file__).parent
    rooms = [path.name for path in package.iterdir() if path.suffix == ".py"]
    rooms += [
        path.parent.relative_to(package).as_posix() for path in package.glob("*/**/__init__.py")
    ]
    rooms = [room for room in rooms if "/" not in room or room.startswith("gallery/")]
    assert [room for room in rooms if f"`{room}`" not in page] == []


def test_every_public_name_is_in_the_reference() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in (REPO / "docs/api").glob("*.md"))
    listed = re.findall(r"^::: (\S+)$", text, re.MULTILINE)
    assert len(listed) == len(set(listed))
    for name in listed:
        _resolve(name)
    public = {f"facecore.{name}" for name in facecore.__all__}
    public |= {f"facecore.operations.{name}" for name in facecore.operations.__all__}
    assert public - set(listed) == set()


@pytest.mark.parametrize("module", MODULES)
def test_docstring_examples_run(module: str) -> None:
    done = doctest.testmod(importlib.import_module(module))
    assert done.attempted
    assert not done.failed


def test_the_quickstart_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in _blocks(REPO / "docs/quickstart.md", "python"):
        exec(compile(block, "quickstart.md", "exec"), names)
