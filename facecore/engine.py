"""FaceEngine, the main entry point: detect, embed and compare the faces of images."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from operator import length_hint
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from facecore import images
from facecore._utils.cpus import usable_cpus
from facecore._utils.forks import FORK_LOCK
from facecore._utils.threads import at_once
from facecore.errors import FacecoreError, InvalidParameter, NotCalibrated
from facecore.face.alignment import TEMPLATE, align
from facecore.face.detection import Face
from facecore.face.sample import FaceSample
from facecore.images import ImageInput, Picture
from facecore.matching import comparison
from facecore.matching.calibration import Calibration
from facecore.matching.comparison import Comparison, CrossComparison, Template
from facecore.matching.scanning import warmup as compile_kernels
from facecore.models.calibration_file import read_calibration
from facecore.models.packs import load_pack
from facecore.models.registry import DEFAULT_PACK
from facecore.models.session import open_model
from facecore.pipeline import (
    FaceChoice,
    FaceInput,
    IfMany,
    Pipeline,
    check_alone,
    open_pipeline,
    translate_errors,
)

if TYPE_CHECKING:
    from facecore.face.attributes import AttributeEstimator, Attributes
    from facecore.face.liveness import AttackClassifier, Liveness
    from facecore.face.quality import Quality
    from facecore.models.packs import Pack
    from facecore.models.session import Provider

__all__ = ["FaceChoice", "FaceEngine", "FaceInput", "IfMany"]

T = TypeVar("T")

# Imported on first use, like the measures of quality: a comparison needs none of them.
_OPTIONAL = {
    "liveness": ("facecore.face.liveness", "AttackClassifier"),
    "attributes": ("facecore.face.attributes", "AttributeEstimator"),
}


class FaceEngine:
    """Detects, embeds and compares faces on this machine.

    Threads may share an engine: its models keep no state between calls.  A forked process opens
    its own models on first use.  Unpickling or copying an engine opens it again from the
    arguments below (docs/processes.md).

    Parameters
    ----------
    pack : str or PathLike, default "compact"
        Name or folder of an installed model pack.  The engine never downloads anything;
        ``facecore weights pull NAME`` does.
    providers : sequence of str or (str, dict), optional
        Execution providers by precedence, with their options: "CPU" (the default), "CUDA",
        "TensorRT", "OpenVINO", "CoreML", or a full ONNX Runtime name.  TensorRT, OpenVINO and
        CoreML compile a network for each input shape.  A detector without a fixed input
        size runs on the other providers.
    threads : int, optional
        Threads per operator; by default half the number of usable processors, because a
        comparison processes its images in parallel.  On the CPU, `embed_many` uses
        single-threaded models and processes one image per processor.
    allow_fallback : bool, default False
        Use the CPU, and log a warning, if a provider is not available.
    threshold : float, optional
        Lowest score that passes, 0..100; by default 80, the score that 0.1 % of pairs of
        different people reach.
    calibration : path or Calibration, optional
        Map from similarities to scores that replaces the pack's table: a file that
        ``facecore calibrate`` wrote, or a fitted table.  A table for ID portraits in the file
        replaces the pack's; without one, the pack's stays.
    min_recognizability : float, optional
        Lowest recognisability of a face, 0..100; by default the pack's limit.  A face below it
        raises `UnrecognizableFace`.  0 accepts every face, and then no score keeps its false
        accept rate on poor pictures (docs/calibration.md).
    limits : Limits, optional
        Limits on the bytes, pixels and memory of an image.
    isolate_decoding : bool, default False
        Decode encoded images in one or two separate processes, with limits on memory and
        processor time.  A picture that crashes a decoder then raises `UnreadableImage`.  Costs
        about a millisecond per small picture, half a second for the first one, and 60 MB per
        process (docs/pictures.md).  A ``PIL.Image`` is still decoded in this process.

    Raises
    ------
    PackNotFound, PackCorrupt
        The pack is not on this machine, or differs from the published one.
    ProviderUnavailable
        A provider is not available.
    InvalidParameter
        An argument is invalid, or the calibration is damaged or belongs to another contract.

    Attributes
    ----------
    calibration : Calibration
        Table for photographs against photographs.  If the pack has none,
        `Calibration.is_missing` is true: comparisons still give similarities, but scores and
        thresholds raise `NotCalibrated`.
    id_portrait_calibration : Calibration or None
        Table for portraits from an identity card's chip against photographs; None if the pack
        has none.

    Examples
    --------
    >>> import facecore, facecore.demo
    >>> engine = facecore.FaceEngine()
    >>> astronaut = facecore.demo.read("astronaut")  # the bytes of a JPEG file
    >>> engine.compare(astronaut, astronaut).passed
    True
    """

    def __init__(
        self,
        pack: str | os.PathLike[str] = DEFAULT_PACK,
        providers: Sequence[Provider] | None = None,
        threads: int | None = None,
        *,
        allow_fallback: bool = False,
        threshold: float | None = None,
        calibration: str | os.PathLike[str] | Calibration | None = None,
        min_recognizability: float | None = None,
        limits: images.Limits = images.DEFAULT_LIMITS,
        isolate_decoding: bool = False,
    ) -> None:
        self._arguments: dict[str, Any] = {
            "pack": pack,
            "providers": providers,
            "threads": threads,
            "allow_fallback": allow_fallback,
            "threshold": threshold,
            "calibration": calibration,
            "min_recognizability": min_recognizability,
            "limits": limits,
            "isolate_decoding": isolate_decoding,
        }
        loaded = load_pack(pack)
        self.pack = loaded.pack
        self.limits = limits
        processes = min(2, usable_cpus())
        self._decoder: images.Decoder = (
            images.IsolatedDecoder(processes, limits) if isolate_decoding else images.decode_still
        )
        self.calibration, self.id_portrait_calibration = _tables(self.pack, calibration)
        self._threshold = None if threshold is None else _check_score(threshold, "threshold")
        self._least = (
            None
            if min_recognizability is None
            else _check_score(min_recognizability, "min_recognizability")
        )
        threads = max(1, usable_cpus() // 2) if threads is None else threads
        self._loaded, self._threads = loaded, threads
        self._options: dict[str, Any] = {"providers": providers, "allow_fallback": allow_fallback}
        self._pipeline, on_cpu = open_pipeline(
            loaded, limits, threads, self._options, self._decoder, self._least
        )
        # Opened on first use, under FORK_LOCK: few callers need these models.
        self._serial = self._pipeline if threads == 1 or not on_cpu else None
        self._opened: dict[str, Any] = {}

    def __repr__(self) -> str:
        if self.calibration.is_missing:
            return f"FaceEngine(pack={self.pack.name!r}, not calibrated)"
        return f"FaceEngine(pack={self.pack.name!r}, threshold={self.threshold:g})"

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), **self._arguments), ()

    @property
    def threshold(self) -> float:
        """Lowest score that passes, 0..100.

        Raises
        ------
        NotCalibrated
            The pack has no calibration, so it gives no scores.
        """
        default = self.calibration.threshold()
        return default if self._threshold is None else self._threshold

    @property
    def min_recognizability(self) -> float:
        """Lowest recognisability that the engine accepts, 0..100."""
        return self._pipeline.gate.limit

    @property
    def _allowance(self) -> float:
        return self._pipeline.gate.allowance

    def _limit(self, threshold: float | None) -> float | None:
        """Return the threshold of a comparison; None if the engine has no calibration."""
        given = None if threshold is None else _check_score(threshold, "threshold")
        if self.calibration.is_missing:
            return None
        return self.threshold if given is None else given

    @property
    def contract_id(self) -> str:
        """Identifier of the vector space; compare only vectors of the same contract."""
        return self._pipeline.contract

    def warmup(self) -> None:
        """Run every model once and compile the kernels, so that the first calls do not.

        Also opens the models for liveness and for age and gender, if the pack has them and this
        version runs them.  Afterwards no call on this engine, and no search of its galleries,
        compiles anything.
        """
        compile_kernels(self.pack.embedder.output.dimension)
        picture = Picture.of(np.full((480, 480, 3), 128, np.uint8))
        points = TEMPLATE * 2 + 128  # the aligned face at twice its size, in the middle
        face = Face(np.array([148, 168, 332, 368], np.float32), points.astype(np.float32), 1.0)
        self.detect(picture)
        sample = FaceSample(picture, face, align(picture, face.landmarks))
        if self.pack.runs_liveness:
            self.liveness(sample)  # before `embed`: after it, the gate would refuse the sample
        self._pipeline.embed([sample])
        self.quality(sample)
        if self.pack.attributes is not None:
            self._optional("attributes", "").estimate(sample.crop[None])

    def open(
        self, image: ImageInput, *, limits: images.Limits | None = None, decode: bool = True
    ) -> Picture:
        """Read and check an image, and decode it at the resolution that face detection needs.

        Every method that takes an image also takes the result.  To find the face as well, use
        `sample`.

        Parameters
        ----------
        image : image
            As in `detect`.
        limits : Limits, optional
            Stricter limits, used instead of the engine's.
        decode : bool, default True
            If False, check the header and decode the pixels later.

        Raises
        ------
        UnreadableImage, ImageTooLarge, InvalidParameter
            See `facecore.images.load`.
        """
        if not decode:
            return self._pipeline.read(image, limits)
        return self._pipeline.open(image, limits=limits)

    def decode(self, pictures: Sequence[Picture]) -> None:
        """Decode several pictures in parallel, each in a separate process.

        Raises no error of a picture: the method that needs the pixels raises it.  That method also
        decodes a picture for which no process was free; without ``isolate_decoding``, all of them.

        Parameters
        ----------
        pictures : sequence of Picture
            From ``open(..., decode=False)``.
        """
        if isinstance(self._decoder, images.IsolatedDecoder):
            scales = [self._pipeline.first_scale(picture, "largest") for picture in pictures]
            self._decoder.decode_together(pictures, scales)

    def detect(self, image: ImageInput) -> list[Face]:
        """Detect all faces of an image, largest first; the list is empty if there is none.

        Leaves out faces whose box has a longer side below 20 pixels.  Reduces a large picture
        first: to a longer side of 1920 pixels with YuNet, of 1280 with SCRFD and RetinaFace.  The
        20 pixels apply to the reduced picture.

        Parameters
        ----------
        image : path, bytes, binary file, PIL.Image, Picture or ndarray, (H, W, 3), uint8, BGR
            Encoded images and PIL images are turned upright by their EXIF orientation.

        Raises
        ------
        UnreadableImage, ImageTooLarge, InvalidParameter
            See `facecore.images.load`.
        """
        return self._pipeline.detect(image)

    def largest_face(self, image: ImageInput) -> Face:
        """Detect the largest face of an image.

        Raises
        ------
        NoFaceDetected
            The image shows no face.
        UnreadableImage, ImageTooLarge, InvalidParameter
            See `facecore.images.load`.
        """
        return self._pipeline.find(image, "largest")

    def sample(self, image: FaceInput, *, face: FaceChoice = "largest") -> FaceSample:
        """Detect and align one face of an image, for the methods that accept a FaceSample.

        Parameters
        ----------
        image : image or FaceSample
            As in `detect`; a sample is returned unchanged.
        face : {"largest", "central"}
            Which face of the image to use.

        Raises
        ------
        NoFaceDetected
            There is no face, or none that can be aligned.
        UnreadableImage, ImageTooLarge, InvalidParameter
            See `facecore.images.load`.

        Examples
        --------
        >>> import facecore, facecore.demo
        >>> engine = facecore.FaceEngine()
        >>> astronaut = engine.sample(facecore.demo.read("astronaut"))
        >>> engine.compare(astronaut, astronaut).passed, astronaut.crop.shape
        (True, (112, 112, 3))
        """
        _check_choice(face)
        return self._pipeline.sample(image, face)

    def samples(self, image: FaceInput) -> list[FaceSample]:
        """Detect, align and embed every face of an image, largest first.

        Leaves out faces that cannot be aligned, or that the embedder cannot read.

        Parameters
        ----------
        image : image or FaceSample
            As in `detect`; the list for a sample holds only that sample, if it can be read.

        Returns
        -------
        list of FaceSample
            Empty if no face is left.

        Raises
        ------
        UnreadableImage, ImageTooLarge, InvalidParameter
            See `facecore.images.load`.

        Examples
        --------
        >>> import facecore, facecore.demo, numpy as np
        >>> engine = facecore.FaceEngine()
        >>> astronaut = facecore.demo.pictures()["astronaut"]
        >>> len(engine.samples(np.hstack([astronaut, astronaut])))
        2
        """
        return self._pipeline.samples(image)

    def samples_many(
        self, images: Iterable[FaceInput], batch_size: int = 32, progress: bool = False
    ) -> Iterator[list[FaceSample] | FacecoreError]:
        """Apply `samples` to many images, in order, while images are still being read.

        Parameters
        ----------
        images, batch_size, progress
            As in `embed_many`.

        Yields
        ------
        list of FaceSample, or FacecoreError
            The error, if the image cannot be read.

        Raises
        ------
        InvalidParameter
            `images` is a single image, or `batch_size` is invalid.
        """
        pipeline = self._worker_pipeline()
        return _streamed(pipeline, images, batch_size, progress, None, pipeline.samples_of)

    def embed(self, image: FaceInput, *, face: FaceChoice = "largest") -> NDArray[np.float32]:
        """Embed one face of an image.

        Parameters
        ----------
        image : image or FaceSample
            As in `sample`.
        face : {"largest", "central"}
            Which face of the image to use.

        Returns
        -------
        ndarray, shape (D,), float32
            Of unit length.

        Raises
        ------
        NoFaceDetected
            There is no face, or none that can be aligned; nothing is embedded then.
        UnrecognizableFace
            The embedder cannot read the face; see `min_recognizability`.
        UnreadableImage, ImageTooLarge, InvalidParameter
            See `facecore.images.load`.
        """
        sample = self.sample(image, face=face)
        (vector,) = self._pipeline.embed([sample])
        self._pipeline.check(sample)
        return vector.copy()

    def embed_many(
        self,
        images: Iterable[FaceInput],
        batch_size: int = 32,
        progress: bool = False,
        *,
        face: FaceChoice = "largest",
        if_many: IfMany = "largest",
    ) -> Iterator[NDArray[np.float32] | FacecoreError]:
        """Embed one face of each of many images, in order, while images are still being read.

        Parameters
        ----------
        images : iterable of image or FaceSample
            Read lazily, at most two batches ahead.
        batch_size : int, default 32
            Number of images that the worker threads divide among themselves.  Each embeds the
            faces of its share in one run; on a CPU, at most 8 per run.
        progress : bool, default False
            Show a progress bar on standard error.
        face : {"largest", "central"}
            Which face of an image to use.
        if_many : {"largest", "refuse"}
            As in `compare`; a refused image yields the error SeveralFacesDetected.

        Yields
        ------
        ndarray, shape (D,), float32, or FacecoreError
            The error, if the image has no vector: one bad image never ends the run.

        Raises
        ------
        InvalidParameter
            `images` is a single image, or `batch_size`, `face` or `if_many` is invalid.
        """
        _check_choice(face)
        _check_if_many(if_many)
        pipeline = self._worker_pipeline()
        work = partial(pipeline.vectors_of, choice=face, if_many=if_many)
        return _streamed(pipeline, images, batch_size, progress, face, work)

    def quality(self, image: FaceInput, *, face: FaceChoice = "largest") -> Quality:
        """Measure how well the picture of one face suits a comparison.

        Parameters
        ----------
        image : image or FaceSample
            As in `sample`.
        face : {"largest", "central"}
            Which face of the image to use.

        Returns
        -------
        Quality
            ``score`` 0..100, ``level`` "HIGH", "MEDIUM" or "LOW", ``measures`` 0..100 by name.

        Raises
        ------
        NoFaceDetected, UnreadableImage, ImageTooLarge, InvalidParameter
            As in `sample`.

        Examples
        --------
        >>> import facecore, facecore.demo
        >>> engine = facecore.FaceEngine()
        >>> engine.quality(facecore.demo.read("hopper")).level
        'HIGH'
        """
        from facecore.face.quality import assess

        sample = self.sample(image, face=face)
        with translate_errors(sample.picture):
            self._pipeline.embed([sample])  # the score is at most the recognisability
            return assess(sample)

    def attributes(self, image: FaceInput, *, face: FaceChoice = "largest") -> Attributes | None:
        """Estimate the apparent age and gender of one face, for reference only.

        Parameters
        ----------
        image : image or FaceSample
            As in `sample`.
        face : {"largest", "central"}
            Which face of the image to use.

        Returns
        -------
        Attributes or None
            None if the quality is LOW: the picture is too poor for an estimate.

        Raises
        ------
        InvalidParameter
            The pack has no network for age and gender (`pack.attributes` is None).
        NoFaceDetected, UnreadableImage, ImageTooLarge
            As in `sample`.
        """
        estimator: AttributeEstimator = self._optional("attributes", "network for age and gender")
        sample = self.sample(image, face=face)
        if self.quality(sample).level == "LOW":
            return None
        with translate_errors(sample.picture):
            return estimator.estimate(sample.crop[None])[0]

    def compare(
        self,
        a: FaceInput,
        b: FaceInput,
        *,
        face: FaceChoice = "largest",
        threshold: float | None = None,
        id_portrait: bool = False,
        if_many: IfMany = "largest",
    ) -> Comparison:
        """Compare the faces of two images and decide whether they show the same person.

        Parameters
        ----------
        a, b : image or FaceSample
            As in `sample`.
        face : {"largest", "central"}
            Which face of an image to use.
        threshold : float, optional
            Lowest score that passes, 0..100; by default the engine's.
        id_portrait : bool, default False
            Whether one of the two images is the small portrait from an identity card's chip
            (102×126 pixels).  The score then comes from the table measured on these portraits.
            It has the same meaning: 0.1 % of pairs of different people reach 80.
        if_many : {"largest", "refuse"}
            If an image shows several faces: compare the one that `face` chooses
            (`Comparison.others` counts the others), or raise SeveralFacesDetected.

        Raises
        ------
        SeveralFacesDetected
            An image shows several faces, and `if_many` is "refuse".
        NoFaceDetected, UnrecognizableFace, UnreadableImage, ImageTooLarge, InvalidParameter
            The message names the image.
        NotCalibrated
            `id_portrait` is true, and the pack has no table for it.  If the pack has no table at
            all, the scores of the result raise this error.
        """
        limit = self._limit(threshold)
        _check_if_many(if_many)
        table = self.calibration_for(id_portrait)
        first, second = self._templates(face, if_many, a=a, b=b)
        return comparison.compare(first, second, table, limit, self._allowance)

    def compare_all(
        self,
        reference: FaceInput,
        image: FaceInput,
        *,
        threshold: float | None = None,
        id_portrait: bool = False,
    ) -> list[Comparison]:
        """Compare the largest face of a reference with every face of an image, best first.

        Each score is that of a single comparison.  If `image` shows n strangers, the chance that
        any of them passes is up to n times the threshold's false accept rate.

        Parameters
        ----------
        reference, image : image or FaceSample
            As in `samples`.
        threshold, id_portrait
            As in `compare`.

        Returns
        -------
        list of Comparison
            ``faces[1]`` is the face of `image`.  The list leaves out faces that the embedder
            cannot read, and is empty if `image` shows no face.

        Raises
        ------
        NoFaceDetected, UnrecognizableFace
            The reference shows no face, or none that the embedder can read.
        UnreadableImage, ImageTooLarge, InvalidParameter, NotCalibrated
            As in `compare`.
        """
        limit = self._limit(threshold)
        table = self.calibration_for(id_portrait)
        (first,) = self._templates("largest", "largest", reference=reference)
        found = [
            comparison.compare(first, self._as_template(sample), table, limit, self._allowance)
            for sample in self.samples(image)
        ]
        return sorted(found, key=lambda one: one.similarity - one.allowance, reverse=True)

    def cross_compare(
        self,
        a: FaceInput,
        b: FaceInput,
        c: FaceInput,
        mode: Literal["chain", "loop"] = "chain",
        *,
        face: FaceChoice = "largest",
        threshold: float | None = None,
        id_portrait: bool = False,
    ) -> CrossComparison:
        """Compare three images: A with B, B with C and, in a loop, C with A.

        Parameters
        ----------
        a, b, c : image or FaceSample
            As in `sample`.
        mode : {"chain", "loop"}
        face, threshold, id_portrait
            As in `compare`.

        Raises
        ------
        NoFaceDetected, UnrecognizableFace, UnreadableImage, ImageTooLarge
        InvalidParameter, NotCalibrated
            As in `compare`.
        """
        if mode not in ("chain", "loop"):
            raise InvalidParameter(f"mode is {mode!r}", 'use "chain" or "loop"')
        limit = self._limit(threshold)
        table = self.calibration_for(id_portrait)
        first, second, third = self._templates(face, "largest", a=a, b=b, c=c)
        return comparison.cross_compare(first, second, third, table, limit, mode, self._allowance)

    def calibration_for(self, id_portrait: bool = False) -> Calibration:
        """Return the table for photographs, or the one for ID portraits against photographs.

        Raises
        ------
        NotCalibrated
            The pack has no table for ID portraits.  (If it has none for photographs, every
            method of the returned table raises this.)
        """
        table = self.id_portrait_calibration if id_portrait else self.calibration
        if table is None:
            raise NotCalibrated(
                f"the pack {self.pack.name} has no calibration for ID portraits",
                "measure one with facecore calibrate, or leave id_portrait out",
            )
        return table

    def liveness(
        self, image: FaceInput, *, face: FaceChoice = "largest", threshold: float | None = None
    ) -> Liveness:
        """Detect whether a face was photographed from a print or a screen.

        Does not stop good masks, or injection attacks, which bypass the camera.  Read
        docs/liveness.md before you rely on it.

        Parameters
        ----------
        image : image or FaceSample
            As in `sample`.  Give the camera's original picture with the surroundings of the
            face: cropping and compression remove traces of a recapture.
        face : {"largest", "central"}
            Which face of the image to use.
        threshold : float, optional
            Lowest attack score that counts as an attack, 0..100; by default the pack's.

        Raises
        ------
        FaceTooSmall
            The face is smaller than 48 pixels.
        FaceTurned
            The head is turned sideways by more than 60 degrees, or tilted by more than 45.
        UnrecognizableFace
            `image` is a FaceSample that is already embedded, and `embed` refuses it.  This
            method embeds nothing itself: that would double the cost.
        InvalidParameter
            The pack has no liveness model, or an argument is invalid.
        NoFaceDetected, UnreadableImage, ImageTooLarge
            As in `sample`.
        """
        limit = None if threshold is None else _check_score(threshold, "threshold")
        classifier: AttackClassifier = self._optional("liveness", "liveness model")
        sample = self.sample(image, face=face)
        self._pipeline.check(sample)
        with translate_errors(sample.picture):
            found = classifier.assess(sample.pixels, sample.face)
        return found if limit is None else replace(found, threshold=limit)

    def _templates(self, face: FaceChoice, if_many: IfMany, **named: FaceInput) -> list[Template]:
        tasks = [
            partial(self._template, name, image, face, if_many) for name, image in named.items()
        ]
        given = named.values()
        shared = all(isinstance(i, FaceSample) or images.is_independent(i) for i in given)
        contract = self._pipeline.contract
        known = all(isinstance(i, FaceSample) and contract in i.vectors for i in given)
        return at_once(tasks) if shared and not known else [task() for task in tasks]

    def _template(self, name: str, image: FaceInput, face: FaceChoice, if_many: IfMany) -> Template:
        try:
            sample = self.sample(image, face=face)
            check_alone((sample.face, *sample.others), if_many)
            self._pipeline.embed([sample])
            self._pipeline.check(sample)
        except FacecoreError as error:
            raise type(error)(f"image {name}: {error.message}", error.hint) from error
        return self._as_template(sample)

    def _as_template(self, sample: FaceSample) -> Template:
        (vector,) = self._pipeline.embed([sample])
        clear = sample.scores[self.contract_id]
        return Template(sample.face, vector, len(sample.others), clear)

    def _optional(self, role: Literal["liveness", "attributes"], what: str) -> Any:
        """Return an optional model of the pack; open it on first use, since few callers need it."""
        with FORK_LOCK:
            if role not in self._opened:
                spec, data = getattr(self.pack, role), getattr(self._loaded, role)
                if spec is None or data is None:
                    raise InvalidParameter(
                        f"the pack {self.pack.name} has no {what}",
                        'use a pack that has one, such as "compact"',
                    )
                session = open_model(spec, data, threads=self._threads, **self._options)
                module, name = _OPTIONAL[role]
                self._opened[role] = getattr(import_module(module), name)(session, spec)
            return self._opened[role]

    def _worker_pipeline(self) -> Pipeline:
        """Return the pipeline of `embed_many`; models on the CPU have one thread each."""
        with FORK_LOCK:
            if self._serial is None:
                self._serial, _ = open_pipeline(
                    self._loaded, self.limits, 1, self._options, self._decoder, self._least
                )
            return self._serial


def _tables(
    pack: Pack, given: str | os.PathLike[str] | Calibration | None
) -> tuple[Calibration, Calibration | None]:
    """Return the tables for photographs and for ID portraits: the pack's or the user's."""
    own, contract = pack.embedder, pack.contract_id
    table = Calibration.missing(pack.name, contract)
    if own.calibration is not None:
        table = Calibration.from_spec(own.calibration, contract)
    portrait: Calibration | None = None
    if own.id_portrait_calibration is not None:
        portrait = Calibration.from_spec(own.id_portrait_calibration, contract)
    if given is None:
        return table, portrait
    if isinstance(given, Calibration):
        measured, name = given.contract or contract, "the calibration"
        table = given
    elif isinstance(given, (str, os.PathLike)):
        file = read_calibration(Path(given))
        measured, name = file.contract, str(given)
        table = Calibration.from_spec(file.calibration, file.contract)
        if file.id_portrait_calibration is not None:
            portrait = Calibration.from_spec(file.id_portrait_calibration, file.contract)
    else:
        raise InvalidParameter(
            f"calibration is {given!r:.80}", "give a file of facecore calibrate, or a Calibration"
        )
    if measured != contract:
        raise InvalidParameter(
            f"{name} was measured for the contract {measured}, "
            f"the pack {pack.name} has the contract {contract}",
            f"measure again: facecore calibrate DIR --pack {pack.name}",
        )
    return table, portrait


def _streamed(
    pipeline: Pipeline,
    images: Iterable[FaceInput],
    batch_size: int,
    progress: bool,
    choice: FaceChoice | None,
    work: Callable[[list[FaceInput | FacecoreError]], list[T]],
) -> Iterator[T]:
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise InvalidParameter(f"batch_size is {batch_size!r}, must be an integer from 1")
    _check_several(images)
    answers = pipeline.stream(images, batch_size, choice, work)
    if not progress:
        return answers
    from tqdm import tqdm

    return iter(tqdm(answers, total=length_hint(images) or None, unit="image", desc="embedding"))


_SINGLE = (str, bytes, bytearray, memoryview, os.PathLike, Picture, FaceSample)


def _check_several(images: Iterable[FaceInput]) -> None:
    """Refuse a single image: a loop over an array of pixels would take each row for an image."""
    pixels = isinstance(images, np.ndarray) and images.dtype.kind in "uif" and images.ndim < 4
    if pixels or isinstance(images, _SINGLE) or hasattr(images, "read"):
        raise InvalidParameter("images is a single image", "give a list of images")
    try:
        iter(images)
    except TypeError:
        raise InvalidParameter(f"images is {images!r:.80}", "give a list of images") from None


def _check_if_many(if_many: str) -> None:
    if if_many not in get_args(IfMany):
        raise InvalidParameter(f"if_many is {if_many!r}", 'use "largest" or "refuse"')


def _check_choice(choice: str) -> None:
    if choice not in get_args(FaceChoice):
        raise InvalidParameter(f"face is {choice!r}", 'use "largest" or "central"')


def _check_score(value: float, name: str) -> float:
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not (number and 0 <= value <= 100):  # a NaN fails too
        raise InvalidParameter(f"{name} is {value!r}, must be within 0..100")
    return float(value)
