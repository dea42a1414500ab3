"""Index generations: loading after a crash, a damaged file or a foreign file."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from facecore.errors import InvalidParameter
from facecore.gallery.index import generations
from facecore.gallery.index.generations import Generation, Unusable

CONTRACT = "a1b2"


class TinyIndex:
    """Two files, one of them empty."""

    dimension = 4

    def __init__(self, data=b"rows"):
        self.data = data

    def __len__(self):
        return len(self.data)

    def save(self, folder):
        assert list(folder.iterdir()) == []
        (folder / "rows.bin").write_bytes(self.data)
        (folder / "none.bin").write_bytes(b"")


def save(root, data=b"rows", contract=CONTRACT, watermark=None, **options):
    watermark = watermark or {"changes": len(data)}
    return generations.save(
        root, TinyIndex(data), kind="tiny", contract=contract, watermark=watermark, **options
    )


def latest(root, contract=CONTRACT, dimension=4):
    return generations.latest(root, contract, dimension)


def reason(root, **wanted):
    found = latest(root, **wanted)
    assert isinstance(found, Unusable), found
    return found.reason


def test_what_was_saved_is_found(tmp_path):
    root = tmp_path / "deep" / "index"
    saved = save(root, watermark={"changes": 7, "id": "é"}, parameters={"m": 16})
    found = latest(root)
    assert found == saved
    assert found == Generation(
        folder=root / "000001",
        kind="tiny",
        dimension=4,
        contract=CONTRACT,
        rows=4,
        parameters={"m": 16},
        watermark={"changes": 7, "id": "é"},
    )
    assert (found.folder / "rows.bin").read_bytes() == b"rows"


def test_a_new_generation_replaces_the_old_one(tmp_path):
    save(tmp_path, b"old")
    save(tmp_path, b"new one")
    assert [path.name for path in tmp_path.iterdir()] == ["000002"]
    assert latest(tmp_path).watermark == {"changes": 7}


def test_nothing_saved(tmp_path):
    assert reason(tmp_path) == "there is no saved index"
    assert reason(tmp_path / "missing") == "there is no saved index"
    (tmp_path / "file").write_bytes(b"")
    assert reason(tmp_path / "file") == "there is no saved index"


def test_foreign_generations_are_refused(tmp_path):
    save(tmp_path)
    assert "contract is a1b2, not ffff" in reason(tmp_path, contract="ffff")
    assert "dimension is 4, not 5" in reason(tmp_path, dimension=5)


def test_another_format_is_refused(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(generations, "FORMAT", 2)
        save(tmp_path)
    assert "format is 2, not 1" in reason(tmp_path)


def test_every_flipped_byte_is_noticed(tmp_path):
    folder = save(tmp_path).folder
    for path in folder.iterdir():
        data = path.read_bytes()
        for at in range(len(data)):
            for flip in (0x01, 0x20, 0x80):
                path.write_bytes(data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :])
                assert path.name in reason(tmp_path), (path.name, at, flip)
        path.write_bytes(data)
    assert isinstance(latest(tmp_path), Generation)


def test_every_other_length_is_noticed(tmp_path):
    folder = save(tmp_path).folder
    for path in folder.iterdir():
        data = path.read_bytes()
        for length in range(len(data)):
            path.write_bytes(data[:length])
            assert path.name in reason(tmp_path), (path.name, length)
        path.write_bytes(data + b"\0")
        assert path.name in reason(tmp_path)
        path.unlink()
        assert path.name in reason(tmp_path)
        path.write_bytes(data)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "{}", '{"format": 1}', "[" * 100_000, '{"sha256": "0"}']
)
def test_a_manifest_of_another_shape(tmp_path, text):
    folder = save(tmp_path).folder
    (folder / "manifest.json").write_text(text)
    assert "manifest.json is damaged" in reason(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"generation": {}}, {"generation": None}, {"generation": []}, {"files": None},
        {"files": {"rows.bin": None}}, {"files": {"rows.bin": {}}}, {"files": []},
        {"files": {"../rows.bin": {"size": 5, "sha256": "0"}}},
        *({"generation": {field: value}}
          for field in ("kind", "dimension", "contract", "rows", "parameters", "watermark", "more")
          for value in (None, [], 1.5, True)),
    ],
)  # fmt: skip
def test_a_sealed_manifest_of_other_types(tmp_path, change):
    path = save(tmp_path).folder / "manifest.json"
    manifest = json.loads(path.read_bytes())
    for key, value in change.items():
        part = manifest[key]
        manifest[key] = {**part, **value} if key == "generation" and value else value
    path.write_bytes(generations._sealed(manifest))
    assert "manifest.json does not describe an index" in reason(tmp_path)
    generations.watermark(tmp_path)


def test_the_older_one_is_found_when_the_newest_is_damaged(tmp_path):
    older = save(tmp_path / "a")
    newer = save(tmp_path / "b", b"newer")
    newer.folder.rename(tmp_path / "a" / "000002")
    assert latest(tmp_path / "a").watermark == {"changes": 5}
    (tmp_path / "a" / "000002" / "rows.bin").write_bytes(b"new")
    assert latest(tmp_path / "a") == older
    (older.folder / "rows.bin").unlink()
    assert reason(tmp_path / "a") == "000002: rows.bin has 3 bytes, not 5"


def test_discard_leaves_no_file(tmp_path):
    save(tmp_path)
    (tmp_path / ".tmp-left").mkdir()
    (tmp_path / ".tmp-left" / "rows.bin").write_bytes(b"rows")
    generations.discard(tmp_path)
    assert list(tmp_path.iterdir()) == []
    generations.discard(tmp_path)
    generations.discard(tmp_path / "missing")
    save(tmp_path)
    assert isinstance(latest(tmp_path), Generation)


def test_discard_says_what_it_could_not_remove(tmp_path, monkeypatch):
    save(tmp_path)

    def refuse(*_args, **_options):
        raise PermissionError(13, "in use")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(InvalidParameter, match="in use"):
        generations.discard(tmp_path)


def test_numbers_grow_past_six_digits(tmp_path):
    save(tmp_path).folder.rename(tmp_path / "999999")
    assert save(tmp_path, b"next").folder.name == "1000000"
    assert [path.name for path in tmp_path.iterdir()] == ["1000000"]
    assert latest(tmp_path).rows == 4


def test_a_failed_save_leaves_the_last_generation(tmp_path):
    kept = save(tmp_path)

    class Failing(TinyIndex):
        def save(self, folder):
            super().save(folder)
            raise OSError(28, "No space left on device")

    with pytest.raises(InvalidParameter, match="No space left"):
        generations.save(tmp_path, Failing(), kind="tiny", contract=CONTRACT, watermark={})
    assert [path.name for path in tmp_path.iterdir()] == ["000001"]
    assert latest(tmp_path) == kept


def test_a_root_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InvalidParameter, match="cannot be written"):
        save(tmp_path / "file")


def test_a_generation_replaced_under_a_reader(tmp_path, monkeypatch):
    save(tmp_path, b"old")
    verify = generations._verified
    calls = []

    def replaced_meanwhile(folder, *wanted):
        if not calls:
            save(tmp_path, b"newer")
        calls.append(folder.name)
        return verify(folder, *wanted)

    monkeypatch.setattr(generations, "_verified", replaced_meanwhile)
    assert latest(tmp_path).watermark == {"changes": 5}
    assert calls == ["000001", "000002"]


# Fork a process for each step that touches the disk, and end it there like a kill.
KILLED = """
import os, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_generations import save

left = 0
def counted(call):
    def step(*args, **options):
        global left
        left -= 1
        if left < 0:
            os._exit(9)
        return call(*args, **options)
    return step
os.fsync = counted(os.fsync)
os.unlink = counted(os.unlink)
os.rmdir = counted(os.rmdir)
for name in ("mkdir", "rename", "write_bytes"):
    setattr(Path, name, counted(getattr(Path, name)))

for steps in range(60):
    child = os.fork()
    if not child:
        left = steps
        save(Path(sys.argv[1]) / str(steps), b"newer")
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
        sys.exit(steps)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_any_step_a_whole_generation_loads(tmp_path):
    for step in range(60):
        save(tmp_path / str(step), b"old")
    code = KILLED.format(tests=str(Path(__file__).parent))
    steps = subprocess.run([sys.executable, "-c", code, str(tmp_path)], timeout=120).returncode
    assert 10 < steps < 60
    found = []
    for step in range(steps + 1):
        root = tmp_path / str(step)
        generation = latest(root)
        assert isinstance(generation, Generation), (step, generation)
        found.append(generation.watermark["changes"])
        data = (generation.folder / "rows.bin").read_bytes()
        assert data == {3: b"old", 5: b"newer"}[generation.watermark["changes"]]
        # The next writer removes the leftovers.
        again = save(root, b"newest")
        assert [path.name for path in root.iterdir()] == [again.folder.name]
    assert found == sorted(found)  # first the old one, then the new one
    assert set(found) == {3, 5}


def test_the_manifest_says_what_it_is(tmp_path):
    manifest = json.loads((save(tmp_path).folder / "manifest.json").read_text())
    assert manifest["format"] == 1
    assert manifest["files"]["rows.bin"]["size"] == 4
    assert set(manifest["generation"]) == {
        "kind",
        "dimension",
        "contract",
        "rows",
        "parameters",
        "watermark",
    }
