"""List and verify known packs; a pull installs the whole, correct pack or nothing."""

from __future__ import annotations

import contextlib
import copy
import errno
import hashlib
import http.server
import json
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from facecore._utils import atomic_files, file_locks
from facecore.errors import PackCorrupt, PackNotFound
from facecore.models import download, registry
from facecore.models.listing import list_packs, verify
from facecore.models.packs import load_pack
from facecore.models.pull import pull
from facecore.models.schema import read_toml

REPO = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("FACECORE_DATA", REPO.parent / "shared")) / "weights"
MANIFEST = REPO / "weights" / "mobilefacenet" / "pack.toml"
MODELS = {"detector": b"D" * 100_000, "embedder": b"E" * 200_001}
TOTAL = sum(map(len, MODELS.values()))


def document(table: dict[str, Any]) -> str:
    def text(value: Any) -> str:
        if isinstance(value, dict):
            return "{" + ", ".join(f"{json.dumps(k)} = {text(v)}" for k, v in value.items()) + "}"
        if isinstance(value, list):
            return "[" + ", ".join(map(text, value)) + "]"
        return json.dumps(value)

    return "\n".join(f"{json.dumps(key)} = {text(value)}" for key, value in table.items())


def registry_table() -> dict[str, Any]:
    urls = {f"{role}.onnx": f"https://example.invalid/{role}.onnx" for role in MODELS}
    big = {"name": "big", "summary": "is pulled", "shipped": False, "files": urls}
    return {"format": 1, "packs": [{"name": "small", "summary": "ships", "shipped": True}, big]}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A facecore that ships `small`, knows `big`, has an empty cache and cannot download."""
    root = tmp_path / "weights"
    for name in ("small", "big"):
        table = copy.deepcopy(read_toml(MANIFEST)) | {"name": name}
        for role, data in MODELS.items():
            digest = hashlib.sha256(data).hexdigest()
            table[role] |= {"file": f"{role}.onnx", "size": len(data), "sha256": digest}
        for tables in ("calibration", "id_portrait_calibration", "recognizability"):
            table["embedder"][tables]["embedder"] = table["embedder"]["sha256"]
        (root / name).mkdir(parents=True)
        (root / name / "pack.toml").write_text(document(table))
    for role, data in MODELS.items():
        (root / "small" / f"{role}.onnx").write_bytes(data)
    (root / "registry.toml").write_text(document(registry_table()))
    monkeypatch.setattr(registry, "shipped_root", lambda: root)
    monkeypatch.setenv("FACECORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv(download.MIRROR_VARIABLE, str(tmp_path / "no-mirror"))
    return root


@pytest.fixture
def mirror(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "mirror"
    for role, data in MODELS.items():
        (folder / role).mkdir(parents=True)
        (folder / role / f"{role}.onnx").write_bytes(data)
    monkeypatch.setenv(download.MIRROR_VARIABLE, str(folder))
    return folder


class Handler(http.server.BaseHTTPRequestHandler):
    seen: list[str]
    answer: Callable[[Handler, bytes], None]

    def do_GET(self) -> None:
        self.server.seen.append(self.headers["User-Agent"])  # type: ignore[attr-defined]
        role = self.path.rsplit("/", 1)[-1].removesuffix(".onnx")
        self.server.answer(self, MODELS[role])  # type: ignore[attr-defined]

    def send(self, body: bytes, length: int | None = None, status: int = 200) -> None:
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        with contextlib.suppress(OSError):  # the client may have hung up
            self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    serving: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    serving.seen = []
    serving.answer = lambda handler, data: handler.send(data, len(data))
    thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    address = f"http://127.0.0.1:{serving.server_port}/some/base/"
    monkeypatch.setenv(download.MIRROR_VARIABLE, address)
    yield serving
    serving.shutdown()
    thread.join()
    serving.server_close()


def left_behind() -> list[str]:
    folder = registry.cache_root()
    return sorted(path.name for path in folder.iterdir())


def test_the_real_registry() -> None:
    known = registry.read_registry()
    assert known["compact"].shipped
    urls = known["mobilefacenet"].files
    manifest = next(pack.manifest for pack in list_packs() if pack.name == "mobilefacenet")
    assert manifest is not None
    assert set(urls) == {manifest.detector.file, manifest.embedder.file}
    for model in manifest.models.values():  # the address and the stated source name one commit
        assert model.source.split(" @ ")[1] in urls[model.file]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda table: table.update(format=2), "format"),
        (lambda table: table.update(extra=1), "extra"),
        (lambda table: table.pop("packs"), "packs"),
        (lambda table: table["packs"][0].update(name="small/"), "packs[0].name"),
        (lambda table: table["packs"][1].update(name="small"), "packs"),
        (lambda table: table["packs"][0].update(shipped=1), "packs[0].shipped"),
        (lambda table: table["packs"][1].update(shipped=True), "packs[1].files"),
        (lambda table: table["packs"][1].pop("files"), "packs[1].files"),
        (lambda table: table["packs"][1].update(files={"../x": "https://a/b"}), "packs[1].files"),
        (lambda table: table["packs"][1]["files"].update(x=3), "packs[1].files.x"),
    ],
)
def test_a_wrong_registry_is_corrupt(root: Path, change: Any, field: str) -> None:
    table = registry_table()
    change(table)
    (root / "registry.toml").write_text(document(table))
    with pytest.raises(PackCorrupt) as caught:
        list_packs()
    assert f"registry.toml: {field}" in caught.value.message


@pytest.mark.parametrize(
    "url",
    ["http://a/b", "ftp://a/b", "file:///a", "https://", "https://u:p@a/b", "https://a/b?q", ""],
)
def test_an_address_is_plain_https(root: Path, url: str) -> None:
    table = registry_table()
    table["packs"][1]["files"]["detector.onnx"] = url
    (root / "registry.toml").write_text(document(table))
    with pytest.raises(PackCorrupt, match="https"):
        list_packs()


def test_list_packs_tell_what_is_here(root: Path, mirror: Path) -> None:
    small, big = list_packs()
    assert (small.name, small.shipped, small.installed) == ("small", True, True)
    assert small.folder == root / "small"
    assert (big.name, big.shipped, big.installed, big.folder) == ("big", False, False, None)
    assert big.size == TOTAL
    assert big.manifest is not None
    assert big.manifest.embedder.license == "Apache-2.0"
    pull("big", progress=False)
    assert list_packs()[1].folder == registry.cache_root() / "big"
    (root / "small" / "pack.toml").write_text("no")
    assert "pack.toml" in list_packs()[0].problem


def test_verify_reports_and_never_raises(root: Path, mirror: Path) -> None:
    *small, big = verify()
    assert [check.ok for check in small] == [True, True]
    assert (big.pack, big.installed, big.ok) == ("big", False, False)
    assert big.hint == "facecore weights pull big"
    folder = pull("big", progress=False).folder
    assert all(check.ok for check in verify("big"))
    (folder / "embedder.onnx").write_bytes(b"F" + MODELS["embedder"][1:])
    good, bad = verify("big")
    assert good.ok
    assert (bad.file, bad.installed, bad.ok) == ("embedder.onnx", True, False)
    assert "SHA-256" in bad.problem
    (folder / "embedder.onnx").unlink()
    (missing,) = verify(folder)
    assert "embedder.onnx" in missing.problem
    (root / "small" / "pack.toml").write_text("format = 1")
    assert "missing field" in verify("small")[0].problem
    with pytest.raises(PackNotFound):
        verify("unknown")


def test_pull_from_a_folder(mirror: Path, capfd: pytest.CaptureFixture[str]) -> None:
    result = pull("big")
    assert result.downloaded == TOTAL
    assert result.folder == registry.cache_root() / "big"
    assert load_pack("big").embedder == MODELS["embedder"]
    assert load_pack(result.folder).pack.name == "big"  # complete, so it can be copied elsewhere
    out, err = capfd.readouterr()
    assert out == ""
    assert "big" in err
    assert pull("big").downloaded == 0
    assert capfd.readouterr() == ("", "")
    assert left_behind() == ["big"]


def test_pull_repairs(mirror: Path) -> None:
    folder = pull("big", progress=False).folder
    (folder / "detector.onnx").write_bytes(b"damaged")
    assert pull("big", progress=False).downloaded == TOTAL
    assert all(check.ok for check in verify("big"))
    (folder / "detector.onnx").unlink()
    assert pull("big", progress=False).downloaded == TOTAL
    assert left_behind() == ["big"]


def test_pull_of_a_shipped_pack_verifies(root: Path) -> None:
    assert pull("small").downloaded == 0
    (root / "small" / "detector.onnx").write_bytes(b"damaged")
    with pytest.raises(PackCorrupt, match="reinstall"):
        pull("small")


@pytest.mark.parametrize("name", ["unknown", "../big", ""])
def test_pull_of_an_unknown_name(root: Path, name: str) -> None:
    with pytest.raises(PackNotFound, match="small, big"):
        pull(name)


def test_pull_needs_an_address_for_each_file(root: Path, mirror: Path) -> None:
    table = registry_table()
    del table["packs"][1]["files"]["embedder.onnx"]
    (root / "registry.toml").write_text(document(table))
    with pytest.raises(PackCorrupt, match=r"files\.embedder\.onnx"):
        pull("big")


@pytest.mark.skipif(os.name != "posix", reason="other systems test for a file without os.stat")
def test_a_folder_that_cannot_be_entered_is_one_result(
    mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = pull("big", progress=False).folder
    (target.parent / "mine").mkdir()
    (target.parent / "mine" / "pack.toml").write_text("")
    stat = os.stat

    def closed(path: Any, **options: Any) -> os.stat_result:
        if Path(os.fsdecode(path)).parent == target:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return stat(path, **options)

    monkeypatch.setattr(os, "stat", closed)
    assert [(check.pack, check.ok) for check in verify()] == [
        ("small", True),
        ("small", True),
        ("big", False),
        ("mine", False),
    ]
    assert "weights pull big" in verify("big")[0].hint
    assert [pack.name for pack in list_packs()] == ["small", "big", "mine"]
    target.rename(target.with_name("locked"))
    target = target.with_name("locked")
    assert [pack.name for pack in list_packs()] == ["small", "big", "mine"]


def test_the_hash_decides_between_candidates(mirror: Path) -> None:
    for place, data in (("a", b"x" * 100_000), ("a/b", b"short"), ("z", MODELS["detector"])):
        (mirror / place).mkdir(exist_ok=True)
        (mirror / place / "detector.onnx").write_bytes(data)
    (mirror / "detector" / "detector.onnx").unlink()
    assert pull("big", progress=False).downloaded == TOTAL


def test_no_right_candidate(mirror: Path) -> None:
    (mirror / "embedder" / "embedder.onnx").write_bytes(b"x" * 200_001)
    (mirror / "other").mkdir()
    (mirror / "other" / "embedder.onnx").write_bytes(b"x")
    with pytest.raises(PackCorrupt, match="looked at 2"):
        pull("big", progress=False)
    assert left_behind() == []


def test_no_candidate_and_no_folder(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (mirror / "embedder" / "embedder.onnx").unlink()
    with pytest.raises(PackNotFound, match=download.MIRROR_VARIABLE):
        pull("big", progress=False)
    for place in (str(mirror / "nowhere"), "gopher://a", "http://[::1/x", "file://[x/y"):
        monkeypatch.setenv(download.MIRROR_VARIABLE, place)
        with pytest.raises(PackNotFound, match=download.MIRROR_VARIABLE):
            pull("big", progress=False)
    assert left_behind() == []


def test_pull_from_a_file_address(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for role in MODELS:
        (mirror / role / f"{role}.onnx").rename(mirror / f"{role}.onnx")
    monkeypatch.setenv(download.MIRROR_VARIABLE, mirror.as_uri())
    assert pull("big", progress=False).downloaded == TOTAL


def test_pull_over_http(server: Any) -> None:
    assert pull("big", progress=False).downloaded == TOTAL
    assert all(agent.startswith("facecore/") for agent in server.seen)
    assert pull("big", progress=False).downloaded == 0
    assert len(server.seen) == 2


def test_pull_without_a_length(server: Any) -> None:
    server.answer = lambda handler, data: handler.send(data)
    assert pull("big", progress=False).downloaded == TOTAL


def redirect(target: str) -> Callable[[Any, bytes], None]:
    def answer(handler: Any, data: bytes) -> None:
        handler.send_response(302)
        handler.send_header("Location", target)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (lambda h, d: h.send(d[:-1], len(d)), PackNotFound, "cut after"),
        (lambda h, d: h.send(d[:-1]), PackNotFound, "cut after"),
        (lambda h, d: h.send(b"", len(d)), PackNotFound, "cut after 0"),
        (lambda h, d: h.send(d[:-1], len(d) - 1), PackCorrupt, "announces"),
        (lambda h, d: h.send(d + b"x"), PackCorrupt, "longer"),
        (lambda h, d: h.send(d + b"x", len(d) + 1), PackCorrupt, "announces"),
        (lambda h, d: h.send(b"x" * len(d), len(d)), PackCorrupt, "SHA-256"),
        (lambda h, d: h.send(b"", 0, 404), PackNotFound, "404"),
        (lambda h, d: h.send(b"", 0, 503), PackNotFound, "503"),
        (lambda h, d: h.wfile.write(b"not http\r\n\r\n"), PackNotFound, "cannot be downloaded"),
        (lambda h, d: h.connection.close(), PackNotFound, "cannot be downloaded"),
        (redirect("http://127.0.0.1:9/x"), PackNotFound, "not https"),
        (redirect("file:///etc/passwd"), PackNotFound, "HTTP status 302"),
        (redirect("ftp://127.0.0.1/x"), PackNotFound, "not https"),
    ],
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_bad_download_leaves_nothing(
    server: Any, answer: Any, error: type[Exception], message: str
) -> None:
    server.handle_error = lambda *args: None
    server.answer = answer
    with pytest.raises(error, match=message):
        pull("big", progress=False)
    assert left_behind() == []


def test_a_server_that_is_silent(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    done = threading.Event()
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    server.answer = lambda handler, data: done.wait(10)
    with pytest.raises(PackNotFound, match=download.MIRROR_VARIABLE):
        pull("big", progress=False)
    done.set()


def test_a_server_that_drips(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "MINUTES_AT_LEAST", 0)
    monkeypatch.setattr(download, "BYTES_PER_SECOND", 1e9)
    with pytest.raises(PackNotFound, match="too slow"):
        pull("big", progress=False)
    assert left_behind() == []


def test_nothing_listens(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(download.MIRROR_VARIABLE, "http://127.0.0.1:1")
    with pytest.raises(PackNotFound, match="cannot be downloaded"):
        pull("big", progress=False)


def test_only_https_without_a_mirror(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(download.MIRROR_VARIABLE)
    manifest = list_packs()[1].manifest
    assert manifest is not None
    with pytest.raises(PackNotFound, match="https"):
        list(download.published_bytes(manifest.detector, "http://127.0.0.1:1/x"))


def test_an_interrupt_leaves_nothing(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = atomic_files.write_new

    def interrupted(path: Path, chunks: Iterator[bytes]) -> None:
        if path.name == "embedder.onnx":
            next(chunks)
            path.write_bytes(b"half")
            raise KeyboardInterrupt
        write(path, chunks)

    monkeypatch.setattr(atomic_files, "write_new", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pull("big", progress=False)
    assert left_behind() == []


def test_what_a_killed_pull_left_is_cleaned(mirror: Path) -> None:
    stale = registry.cache_root() / ".big.tmp-1-abc"
    stale.mkdir(parents=True)
    (stale / "detector.onnx").write_bytes(b"half")
    foreign = registry.cache_root() / ".other.tmp-1-abc"
    foreign.mkdir()
    pull("big", progress=False)
    assert left_behind() == [foreign.name, "big"]


def no_locks(stream: object, *, wait: bool) -> None:
    raise OSError(errno.ENOLCK, "No locks available")


def test_without_locks_only_old_leftovers_go(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_locks, "lock", no_locks)
    young, old = (registry.cache_root() / f".big.tmp-1-{age}" for age in ("young", "old"))
    young.mkdir(parents=True)
    old.mkdir()
    os.utime(old, (0, 0))
    pull("big", progress=False)
    assert left_behind() == [young.name, "big"]


def test_without_locks_the_faster_one_wins(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_locks, "lock", no_locks)
    publish, entered = atomic_files.publish, []

    def late(folder: Path, target: Path, is_right: Callable[[], bool]) -> None:
        if not entered:
            entered.append(True)
            pull("big", progress=False)  # another pull finishes first
        publish(folder, target, is_right)

    monkeypatch.setattr(atomic_files, "publish", late)
    assert pull("big", progress=False).downloaded == TOTAL
    assert all(check.ok for check in verify("big"))
    assert left_behind() == ["big"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes anywhere")
def test_a_cache_that_cannot_be_written(mirror: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir(mode=0o500)
    with pytest.raises(PackNotFound, match="FACECORE_CACHE"):
        pull("big", progress=False)


def test_a_cache_that_is_a_file(mirror: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(PackNotFound, match="FACECORE_CACHE"):
        pull("big", progress=False)


def test_threads_pull_once(server: Any) -> None:
    results: list[int] = []
    threads = [
        threading.Thread(target=lambda: results.append(pull("big", progress=False).downloaded))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [0, 0, 0, TOTAL]
    assert len(server.seen) == 2


def _pull_real(start: Any, results: Any) -> None:
    start.wait()
    results.put(pull("mobilefacenet", progress=False).downloaded)


def test_two_processes_pull_the_real_pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not (SHARED / "mobilefacenet" / "MobileFaceNet.onnx").is_file():
        pytest.skip(f"no models in {SHARED}; set FACECORE_DATA")
    if (MANIFEST.parent / "MobileFaceNet.onnx").exists():
        pytest.skip("the models lie in this checkout, so nothing is pulled")
    monkeypatch.setenv("FACECORE_CACHE", str(tmp_path))
    monkeypatch.setenv(download.MIRROR_VARIABLE, str(SHARED))
    context = multiprocessing.get_context("spawn")
    start, results = context.Event(), context.Queue()
    children = [context.Process(target=_pull_real, args=(start, results)) for _ in range(2)]
    for child in children:
        child.start()
    start.set()
    downloaded = sorted(results.get(timeout=60) for _ in children)
    for child in children:
        child.join()
        assert child.exitcode == 0
    assert downloaded == [0, 322906 + 3998070]
    assert all(check.ok for check in verify("mobilefacenet"))
    assert left_behind() == ["mobilefacenet"]
