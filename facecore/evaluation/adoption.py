"""Create a pack from a user's model files: recognise, find the preprocessing, calibrate, write."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facecore._utils.text import is_printable
from facecore.engine import FaceChoice, FaceEngine
from facecore.errors import InvalidParameter
from facecore.evaluation import calibrate
from facecore.evaluation.preprocessing import (
    NORMALISATIONS,
    Trial,
    Triple,
    collect_crops,
    find_preprocessing,
    moments,
)
from facecore.face.embedding import Embedder
from facecore.models import adopt as store
from facecore.models.known import KnownModel, licence_in_words, read_known
from facecore.models.manifest import MANIFEST_NAME, DetectorSpec, EmbedderSpec, Manifest
from facecore.models.packs import find_pack
from facecore.models.recognise import Candidate, PassedOver, recognise
from facecore.models.specs import CalibrationSpec, DetectorOutput, EmbedderOutput, InputSpec

__all__ = ["NORMALISATIONS", "Adoption", "Trial", "adopt"]

# Detector family -> channels, mean, std and confidence threshold of its publisher.
_DETECTORS: dict[str, tuple[str, Triple, Triple, float]] = {
    "yunet": ("BGR", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 0.6),
    "scrfd": ("RGB", (127.5, 127.5, 127.5), (128.0, 128.0, 128.0), 0.5),
    "retinaface": ("BGR", (104.0, 117.0, 123.0), (1.0, 1.0, 1.0), 0.6),
}

# Lowest cosine between the vectors of a crop alone and in a batch; float32 keeps seven digits.
_SAME_VECTOR = 0.9999


@dataclass(frozen=True, slots=True, eq=False)
class Adoption:
    """Result of `adopt`.

    Attributes
    ----------
    name : str
        Name of the pack, for ``FaceEngine(name)``.
    folder : Path
        Folder of the manifest.
    manifest : Manifest
    passed_over : mapping of str to str
        Unused file -> reason.
    notes : tuple of str
        Remarks for the user, one sentence each.
    trials : tuple of Trial
        Preprocessings tried, best first; empty if the model is known.
    measurement : Measurement or None
        Measured calibration, if `people` was given.
    """

    name: str
    folder: Path
    manifest: Manifest
    passed_over: Mapping[str, str]
    notes: tuple[str, ...]
    trials: tuple[Trial, ...]
    measurement: calibrate.Measurement | None

    def as_dict(self) -> dict[str, Any]:
        """Convert to JSON-serialisable values."""
        return {
            "name": self.name,
            "folder": str(self.folder),
            "models": {
                role: {"file": model.file, "sha256": model.sha256, "license": model.license}
                for role, model in self.manifest.models.items()
            },
            "input": dataclasses.asdict(self.manifest.embedder.input),
            "max_batch": self.manifest.embedder.max_batch,
            "calibrated": self.manifest.embedder.calibration is not None,
            "passed_over": dict(self.passed_over),
            "notes": list(self.notes),
            "trials": [dataclasses.asdict(trial) for trial in self.trials],
            "measurement": self.measurement and self.measurement.as_dict(),
        }

    def lines(self) -> list[str]:
        """Format as lines of text."""
        lines = [f"{self.name}: adopted, in {self.folder}"]
        for role, model in self.manifest.models.items():
            lines.append(f"  {role}: {model.file}, {model.architecture}")
            lines.append(f"    licence {model.license}: {licence_in_words(model.license)}")
            if model.caveat:
                lines.append(f"    caveat: {model.caveat}")
        lines += [f"  skipped {file}: {why}" for file, why in self.passed_over.items()]
        if self.trials:
            tried = ", ".join(f"{trial} {trial.d_prime:.2f}" for trial in self.trials)
            lines.append(f"  preprocessings tried, with d': {tried}")
        lines += [f"  {note}" for note in self.notes]
        if self.measurement is not None:
            lines += self.measurement.lines()
        return lines


def adopt(
    sources: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    name: str | None = None,
    people: str | os.PathLike[str] | None = None,
    detector: str | os.PathLike[str] | None = None,
    channels: str | None = None,
    normalisation: str | None = None,
    face: FaceChoice = "largest",
    pictures: Mapping[str, NDArray[np.uint8]] | None = None,
    progress: bool = False,
) -> Adoption:
    """Create a pack from a user's model files.

    The files stay in place: the pack's manifest, in the pack cache, records their folder and
    SHA-256.  A detector from another pack is copied.

    Parameters
    ----------
    sources : path, or iterable of path
        ONNX files, or folders of them.
    name : str, optional
        Name of the pack; by default the name of the folder or of the embedder's file.
    people : path, optional
        Folder with one folder of pictures per person, to measure the calibration (at least 46
        people) and to find the preprocessing of an unknown model.
    detector : str or path, optional
        Pack with the detector to use, or an ONNX file; replaces a detector among the sources.
    channels : {"RGB", "BGR"}, optional
        Channel order of the embedder, if known.
    normalisation : str, optional
        One of `NORMALISATIONS`, if known.
    face : {"largest", "central"}
        Face to use in each picture of `people`.
    pictures : mapping of str to ndarray, optional
        Person -> picture (H, W, 3) uint8 BGR, for finding the preprocessing of an unknown
        embedder without `people`.
    progress : bool
        Show progress bars on standard error.

    Returns
    -------
    Adoption

    Raises
    ------
    InvalidParameter
        A model is missing, a role has two models, or an argument is invalid.  Nothing is written
        in that case.
    PackNotFound, PackCorrupt
        The pack `detector` does not exist or is damaged.
    """
    _check_choices(channels, normalisation)
    found, passed_over = _recognise_all(_files(sources))
    embedding = _only(found, "embedder", passed_over)
    if detector is not None:
        for candidate in found["detector"]:
            passed_over[candidate.path.name] = "another detector was requested"
    name = _name(name, sources, embedding)
    album = None if people is None else calibrate.find_pictures(Path(people))
    known = read_known()
    notes: list[str] = []
    with store.staged_pack(name) as (folder, publish):
        finder = _detector(detector, found, passed_over, known, folder)
        if finder.file.lower() == embedding.path.name.lower():
            raise InvalidParameter("detector and embedder have the same file name", "rename one")
        entry = known.get(embedding.sha256)
        spec = _embedder(embedding, entry, channels, normalisation)
        manifest = Manifest(1, name, "1", _summary(finder, embedding), finder, spec)
        engine = _engine(manifest, folder)
        crops, persons = collect_crops(engine, album, pictures, face)
        spec = _check_batches(embedding, spec, crops, notes)
        trials: tuple[Trial, ...] = ()
        if entry is None or channels or normalisation:
            if len(crops):
                spec, trials = find_preprocessing(
                    embedding.session, spec, crops, persons, channels, normalisation, notes
                )
            else:
                given = bool(album or pictures)
                why = "no face was found in the pictures" if given else "no pictures were given"
                notes.append(f"{why} to find the preprocessing: the default is assumed")
        manifest = dataclasses.replace(manifest, embedder=spec)
        measurement = None
        if album is not None:
            manifest, measurement = _calibrated(
                manifest, folder, album, str(people), face, notes, progress
            )
        if measurement is None and (table := _known_table(embedding, entry, spec)):
            spec = dataclasses.replace(spec, calibration=table)
            manifest = dataclasses.replace(manifest, embedder=spec)
            notes.append(f"calibrated with facecore's table: {table.dataset}")
        if manifest.embedder.calibration is None:
            notes.append(
                "not calibrated: the pack gives similarities but no scores; to calibrate it, "
                f"adopt it again with --people DIR, or: facecore calibrate DIR --pack {name}"
            )
        _write(manifest, folder)
        place = publish()
    return Adoption(name, place, manifest, passed_over, tuple(notes), trials, measurement)


def _check_choices(channels: str | None, normalisation: str | None) -> None:
    if channels not in (None, "RGB", "BGR"):
        raise InvalidParameter(f"channels is {channels!r:.40}", "use RGB or BGR")
    if normalisation is not None and normalisation not in NORMALISATIONS:
        known = ", ".join(NORMALISATIONS)
        raise InvalidParameter(f"normalisation is {normalisation!r:.40}", f"use one of {known}")


def _files(sources: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[Path]:
    given = [sources] if isinstance(sources, (str, os.PathLike)) else list(sources)
    files: list[Path] = []
    for source in given:
        path = _expanded(source)
        if os.path.isdir(path):
            try:
                found = sorted(entry for entry in path.iterdir() if entry.is_file())
            except OSError as error:
                reason = error.strerror or error
                raise InvalidParameter(f"{path} cannot be read: {reason}") from error
            found = [entry for entry in found if not entry.name.startswith(".")]
            if not any(entry.suffix.lower() == ".onnx" for entry in found):
                raise InvalidParameter(
                    f"{path} holds no .onnx file", "give the folder of the ONNX files"
                )
            files += found
        elif os.path.isfile(path):
            files.append(path)
        else:
            raise InvalidParameter(f"{path} is neither a file nor a folder that can be read")
    if not files:
        raise InvalidParameter("no file was given", "give a folder of ONNX files, or the files")
    for path in files:
        _check_folder(path)
    return files


def _expanded(path: str | os.PathLike[str]) -> Path:
    # Path.expanduser raises RuntimeError if the user does not exist.
    return Path(os.path.expanduser(path))


def _check_folder(path: Path) -> None:
    """Refuse, before any work, a folder name that the manifest cannot hold."""
    folder = str(path.absolute().parent)
    if not is_printable(folder):
        raise InvalidParameter(
            f"the folder {folder!a} has a name that is not UTF-8, or holds a control character",
            "rename it, or copy the files to another folder",
        )


def _recognise_all(
    files: Sequence[Path],
) -> tuple[dict[str, list[Candidate]], dict[str, str]]:
    found: dict[str, list[Candidate]] = {"detector": [], "embedder": []}
    passed_over: dict[str, str] = {}
    for path in files:
        try:
            candidate = recognise(path)
        except PassedOver as reason:
            passed_over[path.name] = str(reason)
        else:
            found[candidate.role].append(candidate)
    return found, passed_over


def _only(
    found: Mapping[str, Sequence[Candidate]], role: str, passed_over: Mapping[str, str]
) -> Candidate:
    candidates = found[role]
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        names = ", ".join(candidate.path.name for candidate in candidates)
        raise InvalidParameter(
            f"there are {len(candidates)} {role}s: {names}",
            "give one detector and one embedder that belong together",
        )
    why = "; ".join(f"{file} {reason}" for file, reason in passed_over.items())
    hint = "add the embedder's ONNX file"
    if role == "detector":
        hint = "use the one that ships with facecore: --detector compact"
    raise InvalidParameter(f"there is no {role}" + (f": {why:.600}" if why else ""), hint)


def _name(
    name: str | None,
    sources: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    embedding: Candidate,
) -> str:
    if name is None:
        folder = isinstance(sources, (str, os.PathLike)) and os.path.isdir(_expanded(sources))
        own = embedding.path.parent.name if folder else embedding.path.stem
        name = re.sub(r"[^a-z0-9_-]+", "-", own.lower()).strip("-_")[:64]
    store.check_name(name)
    return name


def _summary(finder: DetectorSpec, embedding: Candidate) -> str:
    return f"Adopted: {embedding.path.name}, with the detector {finder.file}"


def _origin(candidate: Candidate, entry: KnownModel | None) -> dict[str, Any]:
    """Manifest fields that describe a file and its origin."""
    unknown = "not stated"
    caveat = "" if entry else "facecore does not know this file: ask its publisher for the terms"
    if entry is not None:
        caveat = entry.caveat
        if not entry.checked:
            caveat = f"{caveat}; " * bool(caveat) + "not tested by facecore"
    return {
        "file": candidate.path.name,
        "size": candidate.size,
        "sha256": candidate.sha256,
        "license": entry.license if entry else unknown,
        "source": entry.source if entry else unknown,
        "training_data": entry.training_data if entry else unknown,
        "caveat": caveat,
        "folder": str(candidate.path.parent),
    }


def _detector(
    detector: str | os.PathLike[str] | None,
    found: Mapping[str, Sequence[Candidate]],
    passed_over: Mapping[str, str],
    known: Mapping[str, KnownModel],
    folder: Path,
) -> DetectorSpec:
    if detector is None:
        candidate = _only(found, "detector", passed_over)
    elif Path(detector).suffix.lower() == ".onnx":
        path = _expanded(detector)
        try:
            candidate = recognise(path)
        except PassedOver as reason:
            raise InvalidParameter(f"{detector}: {reason}") from reason
        if candidate.role != "detector":
            raise InvalidParameter(f"{detector} is an embedder, not a detector")
        _check_folder(path)
    else:
        pack = find_pack(detector)
        if pack.detector.folder is None:
            # Copy the detector: an update of facecore replaces its packs.
            shutil.copyfile(pack.path(pack.detector), folder / pack.detector.file)
        return pack.detector
    entry = known.get(candidate.sha256)
    channels, mean, std, threshold = _DETECTORS[candidate.heads]
    if entry is not None:
        channels, mean, std = entry.channels, entry.mean, entry.std
        threshold = entry.threshold or threshold
    return DetectorSpec(
        **_origin(candidate, entry),
        architecture=candidate.heads,
        threshold=threshold,
        input=InputSpec(
            candidate.input_name,
            candidate.layout,
            channels,
            candidate.height,
            candidate.width,
            mean,
            std,
        ),
        output=DetectorOutput(candidate.outputs, candidate.strides),
    )


def _embedder(
    candidate: Candidate,
    entry: KnownModel | None,
    channels: str | None,
    normalisation: str | None,
) -> EmbedderSpec:
    order = channels or (entry.channels if entry else "RGB")
    mean, std = moments(order, normalisation or "127.5/127.5")
    if entry is not None and normalisation is None:
        mean, std = entry.mean, entry.std
        if order != entry.channels:
            mean, std = mean[::-1], std[::-1]
    return EmbedderSpec(
        **_origin(candidate, entry),
        architecture=entry.architecture if entry else "not stated",
        alignment="arcface-5pt-112",
        max_batch=candidate.max_batch,
        input=InputSpec(
            candidate.input_name,
            candidate.layout,
            order,
            candidate.height,
            candidate.width,
            mean,
            std,
        ),
        output=EmbedderOutput(candidate.outputs[0], candidate.dimension),
    )


def _known_table(
    candidate: Candidate, entry: KnownModel | None, spec: EmbedderSpec
) -> CalibrationSpec | None:
    """Look up facecore's own calibration, valid only for the publisher's preprocessing."""
    if entry is None or spec.input != _embedder(candidate, entry, None, None).input:
        return None
    return entry.calibration


def _write(manifest: Manifest, folder: Path) -> None:
    text = store.manifest_text(manifest)
    (folder / MANIFEST_NAME).write_text(text, encoding="utf-8")


def _engine(manifest: Manifest, folder: Path) -> FaceEngine:
    _write(manifest, folder)
    return FaceEngine(folder)


def _check_batches(
    candidate: Candidate, spec: EmbedderSpec, crops: NDArray[np.uint8], notes: list[str]
) -> EmbedderSpec:
    """Limit the batch size to 1 if a vector depends on the other faces in its batch."""
    if spec.max_batch == 1:
        return spec
    some = crops[:8]
    if not len(some):
        some = np.random.default_rng(0).integers(0, 256, (8, 112, 112, 3), np.uint8)
    together = Embedder(candidate.session, spec).embed(some)
    alone = Embedder(candidate.session, dataclasses.replace(spec, max_batch=1)).embed(some)
    least = float((together * alone).sum(axis=1).min())
    if least >= _SAME_VECTOR:
        return spec
    notes.append(
        f"a vector depends on the other faces in its batch (cosine down to {least:.4f}), as in "
        "dynamically quantised models: the embedder runs one face at a time"
    )
    return dataclasses.replace(spec, max_batch=1)


def _calibrated(
    manifest: Manifest,
    folder: Path,
    album: Sequence[tuple[str | None, Path]],
    people: str,
    face: FaceChoice,
    notes: list[str],
    progress: bool,
) -> tuple[Manifest, calibrate.Measurement | None]:
    """Add a calibration measured on people to the manifest, if there are enough of them."""
    engine = _engine(manifest, folder)
    try:
        measured = calibrate.measure(
            engine,
            album,
            dataset=Path(people).resolve().name or people,
            face=face,
            id_portraits=False,
            progress=progress,
        )
    except InvalidParameter as error:
        notes.append(f"no calibration could be measured on {people}: {error}")
        return manifest, None
    table = measured.calibration.to_spec(manifest.embedder.sha256)
    embedder = dataclasses.replace(manifest.embedder, calibration=table)
    return dataclasses.replace(manifest, embedder=embedder), measured
