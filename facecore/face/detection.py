"""Face detection: boxes and five landmarks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from facecore.face.decoders import FAMILIES, Candidates, Passes
from facecore.models.inference import run, to_tensor

if TYPE_CHECKING:
    from facecore.images.picture import Picture
    from facecore.models.inference import Session
    from facecore.models.manifest import DetectorSpec

__all__ = ["Detector", "Face", "non_maximum_suppression"]


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """One detected face.

    Attributes
    ----------
    box : ndarray, shape (4,), float32
        x1, y1, x2, y2 in pixels of the upright image; may reach beyond its edges.
    landmarks : ndarray, shape (5, 2), float32
        Right eye, left eye, nose tip, right and left mouth corner (the subject's right) in
        pixels of the upright image.
    confidence : float
        0..1, the network's own score; for YuNet, the geometric mean of the class and objectness
        probabilities.
    """

    box: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    confidence: float

    @property
    def size(self) -> float:
        """Square root of the box's area, in pixels."""
        width, height = self.box[2:] - self.box[:2]
        return float(np.sqrt(max(width, 0) * max(height, 0)))


def non_maximum_suppression(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], overlap: float
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Greedy non-maximum suppression of boxes that overlap a better one.

    Parameters
    ----------
    boxes : ndarray, shape (N, 4)
        x1, y1, x2, y2.
    scores : ndarray, shape (N,)
    overlap : float
        Boxes whose intersection over union with a better one exceeds this are dropped.

    Yields
    ------
    (int, ndarray of shape (N,))
        Index of each box to keep, best first, and its intersection over union with every box.
    """
    start, stop = boxes[:, :2], boxes[:, 2:]
    areas = _area(stop - start)
    order = np.argsort(-scores, kind="stable")
    while order.size:
        best = int(order[0])
        shared = _area(np.minimum(stop, stop[best]) - np.maximum(start, start[best]))
        union = areas + (areas[best] - shared)
        overlaps = shared / np.maximum(union, np.finfo(np.float32).tiny)
        yield best, overlaps
        order = order[1:][overlaps[order[1:]] <= overlap]


def _area(sides: NDArray[np.float32]) -> NDArray[np.float32]:
    sides = np.maximum(sides, 0)
    return np.asarray(sides[:, 0] * sides[:, 1])


@dataclass(frozen=True, slots=True, eq=False)
class _Pass:
    """The network's outputs for an image, and the mapping from its input to the image."""

    outputs: Sequence[NDArray[np.float32]]
    size: tuple[int, int]
    margin: int
    ratio: NDArray[np.float32]


class Detector:
    """Finds the faces of a picture, including faces that extend beyond its frame.

    Parameters
    ----------
    session : Session
        A network with the heads of a family in `facecore.face.decoders.FAMILIES`.
    spec : DetectorSpec
        The detector's section of the manifest.

    Notes
    -----
    Up to three passes run, each only if it can add faces.  The coarse pass scales the picture to
    the size at which the network finds faces of ordinary relative size.  The fine pass adds the
    small faces of large pictures.  If neither finds a face, the wide pass pads a small copy, which
    reveals faces that extend beyond the frame.  The family defines the sizes of the passes.

    For a network of fixed input size, the coarse pass fits the picture into that canvas and there
    is no fine pass.

    Several cells may detect the same face.  A family may average the boxes that overlap the best
    one, weighted by their scores (Bazarevsky et al. 2019, arXiv:1907.05047).
    """

    def __init__(self, session: Session, spec: DetectorSpec) -> None:
        self._session = session
        self._spec = spec
        self._family = FAMILIES[spec.architecture]
        self._passes = self._family.passes
        self._canvas: tuple[int, int] | None = None
        if spec.input.height:
            self._canvas = spec.input.height, spec.input.width
            shortest = min(self._canvas)
            small = min(self._passes.small, shortest)
            self._passes = Passes(shortest, small, shortest, shortest // 2)

    def detect(self, image: Picture) -> list[Face]:
        """Detect all faces of a picture, largest first."""
        return self._complete(image, self._candidates(image, self.coarse_scale(image)))

    def prominent_each(self, images: Sequence[Picture]) -> list[list[Face]]:
        """Detect the faces of each image in its first successful pass, largest first.

        Small faces beside the largest may be missing; `detect` finds them.  Boxes and landmarks
        may differ by a fraction of a pixel from those of `detect`, which pools the coarse and the
        fine pass.  All coarse passes run before any decoding, which keeps the code and data of
        the decoder in the processor's caches.
        """
        outputs = [self._forward(image, self.coarse_scale(image)) for image in images]
        coarse = [self._decode(passed) for passed in outputs]
        prominent: list[list[Face]] = []
        for image, found in zip(images, coarse, strict=True):
            faces = self._select([found])
            if not faces:
                faces = self._complete(image, found)
                if len(images) > 1:
                    image.release_pixels()  # only this pass needs the finer pixels
            prominent.append(faces)
        return prominent

    def _complete(self, image: Picture, coarse: Candidates) -> list[Face]:
        passes = [coarse]
        if self.fine_scale(image) > self.coarse_scale(image):
            passes.append(self._candidates(image, self.fine_scale(image)))
        if faces := self._select(passes):
            return faces
        side = self._passes.wide
        scale = side / max(image.height, image.width)
        return self._select([self._candidates(image, scale, margin=side // 2)])

    def coarse_scale(self, image: Picture) -> float:
        """Scale of the first pass."""
        longest = max(image.height, image.width)
        most = self._passes.coarse / longest
        if self._canvas is not None:
            most = min(self._canvas[0] / image.height, self._canvas[1] / image.width)
        return min(max(1.0, self._passes.small / longest), most)

    def fine_scale(self, image: Picture) -> float:
        """Scale of the pass for small faces; at most the coarse scale if there is no fine pass."""
        if self._canvas is not None:
            return self.coarse_scale(image)
        return min(1.0, self._passes.fine / max(image.height, image.width))

    def _candidates(self, image: Picture, scale: float, margin: int = 0) -> Candidates:
        return self._decode(self._forward(image, scale, margin))

    def _forward(self, image: Picture, scale: float, margin: int = 0) -> _Pass:
        import cv2

        pixels, reduction = image.reduced(scale)
        # The last pixels of a reduced picture may extend beyond the full one.
        height, width = (reduction * side for side in pixels.shape[:2])
        inner_width, inner_height = max(1, round(width * scale)), max(1, round(height * scale))
        if self._canvas is not None:
            inner_height = min(inner_height, self._canvas[0])
            inner_width = min(inner_width, self._canvas[1])
        if (inner_height, inner_width) != pixels.shape[:2]:
            # Up to a factor of two, bilinear sampling skips no pixel and takes a fifth of the time.
            kind = cv2.INTER_AREA if 2 * inner_width < pixels.shape[1] else cv2.INTER_LINEAR
            resized = cv2.resize(pixels, (inner_width, inner_height), interpolation=kind)
            pixels = np.asarray(resized, np.uint8)
        canvas = self._canvas
        if canvas is None:
            step = max(self._spec.output.strides)
            outer_width = -(-(inner_width + 2 * margin) // step) * step
            canvas = -(-(inner_height + 2 * margin) // step) * step, outer_width
        tensor = to_tensor(pixels[None], self._spec.input, canvas=canvas, margin=margin)
        feed = {self._spec.input.name: tensor}
        outputs = run(self._session, self._spec.output.names, feed, self._spec.file)
        ratio = np.array([width / inner_width, height / inner_height], np.float32)
        return _Pass(outputs, canvas, margin, ratio)

    def _decode(self, passed: _Pass) -> Candidates:
        points, scores = self._family.decode(
            passed.outputs, passed.size, self._spec.output.strides, self._spec.threshold
        )
        return (points - passed.margin) * passed.ratio, scores

    def _select(self, passes: Sequence[Candidates]) -> list[Face]:
        points, scores = (np.concatenate(parts) for parts in zip(*passes, strict=True))
        values = points.reshape(-1, 14)
        faces = []
        overlap, blend = self._family.overlap, self._family.blend
        for best, overlaps in non_maximum_suppression(values[:, :4], scores, overlap):
            mean = values[best]
            if blend is not None:
                same = overlaps > blend
                same[best] = True  # a box of zero area does not overlap even itself
                weights = scores[same]
                mean = (weights @ values[same]) / weights.sum()
            faces.append(Face(mean[:4], mean[4:].reshape(5, 2), float(scores[best])))
        return sorted(faces, key=lambda face: face.size, reverse=True)
