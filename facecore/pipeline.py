"""Decode, detect, align and embed: from pictures to vectors, with one set of models."""

from __future__ import annotations

import contextlib
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, Union

import numpy as np
from numpy.typing import NDArray

from facecore import images
from facecore._utils import malloc
from facecore._utils.cpus import usable_cpus
from facecore.errors import FacecoreError, NoFaceDetected, SeveralFacesDetected
from facecore.face.alignment import align
from facecore.face.detection import Detector, Face
from facecore.face.embedding import Embedder
from facecore.face.orientation import find_turned, right
from facecore.face.recognizability import Gate
from facecore.face.sample import FaceSample
from facecore.images import ImageInput, open_picture
from facecore.images.picture import Picture
from facecore.models.session import CPU, open_model

if TYPE_CHECKING:
    from facecore.models.packs import LoadedPack

__all__ = [
    "FaceChoice",
    "FaceInput",
    "IfMany",
    "Pipeline",
    "check_alone",
    "open_pipeline",
    "translate_errors",
]

FaceChoice = Literal["largest", "central"]
IfMany = Literal["largest", "refuse"]
FaceInput: TypeAlias = Union[ImageInput, FaceSample]  # noqa: UP007 - ImageInput is a string
"""An image, or a face that was already found in one."""

T = TypeVar("T")
_Cut: TypeAlias = tuple[Face, NDArray[np.uint8]]
"""A face and its aligned crop."""

# Once the decoded pictures hold more bytes than this, `vectors_of` detects their faces.
_TOGETHER = 2**23
# Maximum number of images that a worker takes at a time on a CPU.  Larger batches save no time,
# and the allocator maps and unmaps their tensors in each run: with 16, two workers took a fifth
# longer (``python -m benchmarks throughput``).
_SHARE = 8


class Pipeline:
    """Runs the models on pictures.  Safe to share between threads.

    Parameters
    ----------
    detector : Detector
    embedder : Embedder
    contract : str
        Contract id of the embedder's vectors.
    limits : Limits
        Limits on the bytes, pixels and memory of an image.
    decoder : Decoder, optional
        Decodes encoded images.
    gate : Gate, optional
        Refuses faces that the embedder cannot read; the default refuses none.
    share : int, optional
        Maximum number of faces in one run of the embedder, and of images that a worker of
        `stream` takes at a time; by default unlimited.
    """

    def __init__(
        self,
        detector: Detector,
        embedder: Embedder,
        contract: str,
        limits: images.Limits,
        decoder: images.Decoder = images.decode_still,
        gate: Gate | None = None,
        share: int = sys.maxsize,
    ) -> None:
        self.detector = detector
        self.embedder = embedder
        self.contract = contract
        self.limits = limits
        self.decoder = decoder
        self.gate = gate or Gate()
        self.share = share

    def open(
        self,
        image: ImageInput,
        choice: FaceChoice | None = "largest",
        limits: images.Limits | None = None,
    ) -> Picture:
        """Check an image and decode it at the scale of `first_scale`."""
        picture = self.read(image, limits)
        with translate_errors(picture):
            picture.reduced(self.first_scale(picture, choice))
        if picture.height * picture.width >= malloc.LARGE:
            malloc.trim_heap()  # free the pages of earlier pictures
        return picture

    def read(self, image: ImageInput, limits: images.Limits | None = None) -> Picture:
        """Check an image without decoding its pixels."""
        return open_picture(image, limits or self.limits, self.decoder)

    def first_scale(self, picture: Picture, choice: FaceChoice | None) -> float:
        """Return the scale at which the search for one face, or for all (None), starts."""
        scale = self.detector.coarse_scale(picture)
        if choice != "largest":  # the search runs both passes
            scale = max(scale, self.detector.fine_scale(picture))
        elif 4 * scale <= 1:
            # The crop of a large picture is likely to need a finer scale as well, and decoding
            # the picture twice costs more than decoding it at twice the scale: at 1/8, 1/4 and
            # 1/2, 12 megapixels take 18, 21 and 32 ms.
            scale *= 2
        return scale

    def detect(self, image: ImageInput) -> list[Face]:
        """Detect all faces, largest first."""
        return self._all_faces(self.open(image, None))

    def find(self, image: ImageInput, choice: FaceChoice) -> Face:
        """Detect the chosen face of an image; raises NoFaceDetected."""
        return self.choose(self.open(image, choice), choice)[0]

    def choose(self, picture: Picture, choice: FaceChoice) -> list[Face]:
        """Detect the faces of a picture, the chosen one first; raises NoFaceDetected."""
        if choice == "largest":
            with translate_errors(picture):
                return _there(self._largest_first([picture])[0], picture)
        middle = np.array([picture.width, picture.height]) / 2
        found = self._all_faces(picture)
        if found:
            distances = [np.linalg.norm(f.box.reshape(2, 2).mean(0) - middle) for f in found]
            found.insert(0, found.pop(int(np.argmin(distances))))
        return _there(found, picture)

    def _all_faces(self, picture: Picture) -> list[Face]:
        """Detect all faces with the landmarks of `right`, largest first."""
        with translate_errors(picture):
            found = self.detector.detect(picture)
            righted = right(self.detector, [picture] * len(found), found)
            found = find_turned(self.detector, picture, righted)
            if found != righted:
                righted = right(self.detector, [picture] * len(found), found)
        return sorted(righted, key=lambda face: face.size, reverse=True)

    def _largest_first(self, pictures: Sequence[Picture]) -> list[list[Face]]:
        """Detect the prominent faces of each picture, largest first; `right` corrects the first."""
        found = self._first_righted(self.detector.prominent_each(pictures), pictures)
        for i, picture in enumerate(pictures):
            turned = find_turned(self.detector, picture, found[i])
            if turned != found[i]:
                (found[i],) = self._first_righted([turned], [picture])
        return found

    def _first_righted(
        self, found: list[list[Face]], pictures: Sequence[Picture]
    ) -> list[list[Face]]:
        shown = [i for i, faces in enumerate(found) if faces]
        first = right(self.detector, [pictures[i] for i in shown], [found[i][0] for i in shown])
        for i, face in zip(shown, first, strict=True):
            found[i][0] = face
        return found

    def sample(self, image: FaceInput, choice: FaceChoice) -> FaceSample:
        """Detect and align the chosen face of an image; return a sample unchanged."""
        if isinstance(image, FaceSample):
            return image
        picture = self.open(image, choice)
        face, *others = self.choose(picture, choice)
        with translate_errors(picture):
            crop = align(picture, face.landmarks)
        picture.release_pixels()
        return FaceSample(picture, face, crop, tuple(others))

    def samples(self, image: FaceInput) -> list[FaceSample]:
        """Detect, align and embed every face that can be aligned and read, largest first."""
        if isinstance(image, FaceSample):
            samples = [image]
        else:
            picture, samples = self.open(image, None), []
            faces = self._all_faces(picture)
            with translate_errors(picture):
                for i, face in enumerate(faces):
                    with contextlib.suppress(NoFaceDetected):
                        crop = align(picture, face.landmarks)
                        others = (*faces[:i], *faces[i + 1 :])
                        samples.append(FaceSample(picture, face, crop, others))
            picture.release_pixels()
        self.embed(samples)
        return [one for one in samples if one.scores[self.contract] >= self.gate.limit]

    def embed(self, samples: Sequence[FaceSample]) -> list[NDArray[np.float32]]:
        """Return the vectors of samples; embed those without one in shared runs."""
        new = [sample for sample in samples if self.contract not in sample.vectors]
        for some in (new[i : i + self.share] for i in range(0, len(new), self.share)):
            made = self.embedder.embed(np.stack([sample.crop for sample in some]))
            scores = self.gate.scores(made, [sample.crop for sample in some])
            for sample, vector, score in zip(some, made, scores, strict=True):
                vector.flags.writeable = False  # later calls return it again
                # The score first: other threads look for the vector, then for the score.
                sample.scores[self.contract], sample.vectors[self.contract] = score, vector
        return [sample.vectors[self.contract] for sample in samples]

    def check(self, sample: FaceSample) -> None:
        """Raise UnrecognizableFace for an embedded sample that the embedder cannot read."""
        if self.contract in sample.scores:
            self.gate.check(sample.scores[self.contract], sample.crop, sample.face)

    def vectors_of(
        self,
        sources: Sequence[FaceInput | FacecoreError],
        choice: FaceChoice,
        if_many: IfMany = "largest",
    ) -> list[NDArray[np.float32] | FacecoreError]:
        """Embed one face of each of several images; return an error for an image without a vector.

        Errors among the sources are returned unchanged.

        Each stage handles all pictures before the next stage starts: a run of a model evicts
        everything else from the processor's caches, and uncached code takes several times as long.
        """
        found: dict[int, _Cut | NDArray[np.float32] | FacecoreError] = {}
        pictures: dict[int, Picture] = {}
        for i, image in enumerate(sources):
            try:
                if isinstance(image, FacecoreError):
                    found[i] = image
                elif isinstance(image, FaceSample):
                    check_alone((image.face, *image.others), if_many)
                    found[i] = image.face, image.crop
                    if self.contract in image.vectors:
                        self.check(image)
                        found[i] = image.vectors[self.contract].copy()
                else:
                    pictures[i] = self.open(image, choice)
            except FacecoreError as error:
                found[i] = _without_frames(error)
            last = i == len(sources) - 1
            if pictures and (last or sum(p.nbytes for p in pictures.values()) > _TOGETHER):
                crops = self._crop_each(list(pictures.values()), choice, if_many)
                found.update(zip(pictures, crops, strict=True))
                pictures.clear()
        answers = [found[i] for i in range(len(sources))]
        vectors = iter(self._embed_each([cut for cut in answers if isinstance(cut, tuple)]))
        return [next(vectors) if isinstance(one, tuple) else one for one in answers]

    def samples_of(
        self, sources: Sequence[FaceInput | FacecoreError]
    ) -> list[list[FaceSample] | FacecoreError]:
        """Apply `samples` to several images; return an error for each that cannot be read."""
        answers: list[list[FaceSample] | FacecoreError] = []
        for image in sources:
            try:
                answers.append(image if isinstance(image, FacecoreError) else self._light(image))
            except FacecoreError as error:
                answers.append(_without_frames(error))
        return answers

    def _light(self, image: FaceInput) -> list[FaceSample]:
        """Apply `samples`, then free the pixels of a large picture: many results may wait."""
        samples = self.samples(image)
        if samples and not isinstance(image, (Picture, FaceSample)):
            picture = samples[0].picture
            picture.release_pixels(slow=picture.height * picture.width >= malloc.LARGE)
        return samples

    def stream(
        self,
        sources: Iterable[FaceInput],
        batch_size: int,
        choice: FaceChoice | None,
        work: Callable[[list[FaceInput | FacecoreError]], list[T]],
    ) -> Iterator[T]:
        """Apply `work` to many images, in order; read at most two batches ahead.

        Decoding and the models release the GIL.  A worker thread that does everything for its
        images, with single-threaded models, therefore keeps one processor busy.  Multi-threaded
        operators, or a separate thread for embedding, cost 15 to 25 % on two processors, because
        there are then more busy threads than processors (``python -m benchmarks importing``).
        """
        workers = usable_cpus()
        share = min(-(-batch_size // workers), self.share)
        remaining = iter(sources)
        waiting: deque[Future[list[T]]] = deque()
        with ThreadPoolExecutor(workers) as pool:
            try:
                while True:
                    while (len(waiting) + 1) * share <= 2 * batch_size:
                        more = [self._read(image, choice) for image in islice(remaining, share)]
                        if not more:
                            break
                        waiting.append(pool.submit(work, more))
                    if not waiting:
                        return
                    yield from waiting.popleft().result()
            finally:
                pool.shutdown(cancel_futures=True)

    def _read(self, image: FaceInput, choice: FaceChoice | None) -> FaceInput | FacecoreError:
        """Read an open file or a Pillow image; leave other images to the worker threads."""
        if isinstance(image, FaceSample) or images.is_independent(image):
            return image
        try:
            return self.open(image, choice)
        except FacecoreError as error:
            return _without_frames(error)

    def _crop_each(
        self, pictures: list[Picture], choice: FaceChoice, if_many: IfMany
    ) -> list[_Cut | FacecoreError]:
        faces: list[list[Face]] | None = None
        if choice == "largest":
            # If this fails, `choose` below runs on each picture and finds the one with the error.
            with contextlib.suppress(FacecoreError), translate_errors(pictures[0]):
                faces = self._largest_first(pictures)
        answers: list[_Cut | FacecoreError] = []
        for i, picture in enumerate(pictures):
            try:
                found = self.choose(picture, choice) if faces is None else faces[i]
                check_alone(_there(found, picture), if_many)
                with translate_errors(picture):
                    answers.append((found[0], align(picture, found[0].landmarks)))
            except FacecoreError as error:
                answers.append(_without_frames(error))
            picture.release_pixels()  # many pictures may wait, some decoded at a finer scale
        return answers

    def _embed_each(self, cuts: list[_Cut]) -> list[NDArray[np.float32] | FacecoreError]:
        """Embed crops in one batch; if it fails, one by one, to find the crop with the error."""
        if not cuts:
            return []
        vectors: NDArray[np.float32] | None = None
        try:
            with translate_errors(Picture.of(cuts[0][1])):
                vectors = self.embedder.embed(np.stack([crop for _, crop in cuts]))
        except FacecoreError as error:
            if len(cuts) == 1:
                return [_without_frames(error)]
        if vectors is None:  # outside the handler: later errors must not have its error as context
            return [answer for cut in cuts for answer in self._embed_each([cut])]
        if not self.gate.limit:  # the gate refuses nothing
            return list(vectors)
        answers: list[NDArray[np.float32] | FacecoreError] = []
        scores = self.gate.scores(vectors, [crop for _, crop in cuts])
        for vector, score, (face, crop) in zip(vectors, scores, cuts, strict=True):
            try:
                self.gate.check(score, crop, face)
                answers.append(vector)
            except FacecoreError as error:
                answers.append(_without_frames(error))
        return answers


def open_pipeline(
    loaded: LoadedPack,
    limits: images.Limits,
    threads: int | None,
    options: Mapping[str, Any],
    decoder: images.Decoder = images.decode_still,
    least: float | None = None,
) -> tuple[Pipeline, bool]:
    """Open the pipeline of a pack; also return whether its models run only on the CPU.

    `least` is the lowest recognisability of a face, 0..100; by default the pack's limit.
    """
    pack = loaded.pack
    first = open_model(pack.detector, loaded.detector, threads=threads, **options)
    second = open_model(pack.embedder, loaded.embedder, threads=threads, **options)
    on_cpu = {*first.get_providers(), *second.get_providers()} == {CPU}
    detector, embedder = Detector(first, pack.detector), Embedder(second, pack.embedder)
    gate = Gate(pack.embedder.recognizability, least)
    share = _SHARE if on_cpu else sys.maxsize
    return Pipeline(detector, embedder, pack.contract_id, limits, decoder, gate, share), on_cpu


def check_alone(faces: Sequence[Face], if_many: IfMany) -> None:
    """Refuse a picture with more than one face if `if_many` is "refuse"."""
    if if_many == "refuse" and len(faces) > 1:
        first, second = sorted((face.size for face in faces), reverse=True)[:2]
        raise SeveralFacesDetected(
            f"{len(faces)} faces were found; the largest two measure {first:.0f} "
            f"and {second:.0f} pixels"
        )


def _there(faces: list[Face], picture: Picture) -> list[Face]:
    if not faces:
        raise NoFaceDetected(f"no face was found in the picture of {_size(picture)} pixels")
    return faces


def _size(picture: Picture) -> str:
    return f"{picture.width}x{picture.height}"


@contextlib.contextmanager
def translate_errors(picture: Picture) -> Iterator[None]:
    """Convert MemoryError and cv2.error to a FacecoreError that names the picture's size."""
    try:
        yield
    except FacecoreError:
        raise
    except Exception as error:
        import cv2

        if not isinstance(error, (MemoryError, cv2.error)):
            raise
        text = " ".join(str(error).split()) or "not enough memory"
        raise FacecoreError(
            f"the picture of {_size(picture)} pixels cannot be processed: {text:.300}",
            "if memory runs out, use a smaller picture",
        ) from error


def _without_frames(error: FacecoreError) -> FacecoreError:
    """Remove the tracebacks of an error and its causes: their frames hold the decoded image."""
    link: BaseException | None = error
    seen: set[int] = set()  # the chain of a re-raised error's causes can contain the error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error
