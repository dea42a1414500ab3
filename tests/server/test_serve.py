"""``facecore serve`` as a process: options, start, warm-up and stop."""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from templates import template

from facecore import FaceEngine, Gallery, GalleryNotWritable, cli
from facecore.models.adopt import manifest_text
from facecore.models.manifest import read_manifest
from facecore.models.packs import Pack
from facecore.operations import FaceService, Response
from facecore.server.uvicorn_server import Server
from facecore.server.warmup import prepare, warm

SECRET = "s3cret-s3cret-s3cret"


def complaint(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    assert cli.main(["serve", *options]) == 2
    return capsys.readouterr().err


def test_wrong_options_are_told_before_any_model_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli.serve, "engine_of", lambda args, **_: pytest.fail("models were loaded"))
    folder = str(tmp_path / "gallery")
    for host in ("0.0.0.0", "::", "192.168.0.1", "example.com"):
        error = complaint(capsys, "--gallery", folder, "--no-auth", "--host", host)
        assert "InvalidParameter: --no-auth works only on loopback" in error
    error = complaint(capsys, "--gallery", folder, "--keys", str(tmp_path / "none"))
    assert "InvalidParameter" in error
    error = complaint(capsys, "--gallery", folder, "--no-auth", "--port", "70000")
    assert "InvalidParameter: port 70000" in error
    for options in ([], ["--no-auth", "--keys", "a"]):
        with pytest.raises(SystemExit):
            cli.main(["serve", "--gallery", folder, *options])
    assert not Path(folder).exists()


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_start_and_stop(tmp_path: Path, number: int) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"door-1 {SECRET}\n")
    keys.chmod(0o600)
    access = ["--keys", str(keys)] if number == signal.SIGTERM else ["--no-auth"]
    encrypted = number == signal.SIGTERM and importlib.util.find_spec("sqlcipher3") is not None
    if encrypted:
        secret = tmp_path / "gallery.key"
        secret.write_text("5" * 64 + "\n")
        secret.chmod(0o600)
        access += ["--gallery-key-file", str(secret)]
    command = [sys.executable, "-m", "facecore.cli", "serve", "--port", "0", *access]
    process = subprocess.Popen(
        [*command, "--gallery", str(tmp_path / "gallery"), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        first = json.loads(process.stderr.readline())
        text, _, port = first["message"].rpartition(":")
        assert text == "listening on http://127.0.0.1"
        connection = http.client.HTTPConnection("127.0.0.1", int(port))
        connection.request("POST", "/?Action=QueryFaceGroup&CurrentPage=1&PageSize=10")
        answer = json.load(connection.getresponse())
        connection.close()
        expected = "IncompleteSignature" if number == signal.SIGTERM else "Success"
        assert answer["Code"] == expected
        process.send_signal(number)
        out, rest = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, json.loads(out)) == (0, {"requests": 1})
    lines = [json.loads(line) for line in rest.splitlines()]
    assert [line["code"] for line in lines] == [expected]
    assert SECRET not in rest
    with (tmp_path / "gallery" / "gallery.db").open("rb") as stream:
        assert stream.read(6).startswith(b"SQLite") != encrypted


def test_a_signal_just_before_the_server_listens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, gave_up = Server.run, []

    def late(self: Server, sockets: Any) -> None:
        def give_up() -> None:
            gave_up.append(True)
            self.should_exit = True

        timer = threading.Timer(20, give_up)
        timer.start()
        signal.raise_signal(signal.SIGTERM)
        run(self, sockets)
        timer.cancel()

    monkeypatch.setattr(Server, "run", late)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        folder = str(tmp_path / "gallery")
        assert cli.main(["serve", "--no-auth", "--port", "0", "--gallery", folder]) == 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert not gave_up


def with_old_liveness(pack: Pack, folder: Path) -> Path:
    """Write a manifest like that of version 0.1.0, whose liveness model is no longer run."""
    old = read_manifest(Path(__file__).parents[1] / "data/v0.1.0/compact.toml").liveness
    assert old is not None
    assert pack.liveness is not None
    model = replace(old, file=pack.liveness.file, size=pack.liveness.size)
    manifest = replace(pack.manifest, liveness=replace(model, sha256=pack.liveness.sha256))
    placed: dict[str, Any] = {
        role: replace(spec, folder=str(pack.folder)) for role, spec in manifest.models.items()
    }
    folder.mkdir()
    (folder / "pack.toml").write_text(manifest_text(replace(manifest, **placed)), encoding="utf-8")
    return folder


@pytest.mark.parametrize("old", [False, True])
def test_warming_reaches_every_part(
    old: bool, compact: FaceEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[Response] = []
    call = FaceService.call

    def spy(self: FaceService, name: str, params: dict[str, Any]) -> Response:
        answers.append(call(self, name, params))
        return answers[-1]

    monkeypatch.setattr(FaceService, "call", spy)
    warm(FaceEngine(with_old_liveness(compact.pack, tmp_path / "old")) if old else compact)
    enrolled, checked = (answer.body["Result"] for answer in answers)
    assert enrolled["Passed"] == "Y"
    assert checked["SubCode"] in ("205", "233")
    assert "DuplicateFace" in checked
    assert "ExtFaceInfo" in checked
    assert ("FaceAttackScore" in checked) == (not old)


@pytest.mark.usefixtures("no_sync")
def test_a_gallery_is_ready_before_the_server_listens(
    filled: Gallery, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Build the index; compact the gallery if most faces were removed and the disk allows it."""
    users = ["a", "b", "c", "d"]
    vectors = np.stack([template(user) for user in users])
    filled.add_templates("staff", vectors, users, contract=filled.contract_id)
    for user in ("a", "b"):
        filled.remove("staff", user_id=user)
    prepare(filled)
    assert (filled.stats().removed, filled.stats().index) == (2, "exact")
    filled.remove("staff", user_id="c")

    def full() -> None:
        raise GalleryNotWritable("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(filled._backend, "compact", full)
        prepare(filled)
    assert "not compacted" in caplog.text
    prepare(filled)
    assert (filled.stats().removed, filled.stats().faces) == (0, 1)
