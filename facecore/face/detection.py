"""Face detection: boxes and five landmarks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from facecore.face.alignment import TEMPLATE
from facecore.face.decoders import FAMILIES, Candidates, Passes
from facecore.models.inference import run, to_tensor

if TYPE_CHECKING:
    from facecore.images.picture import Picture
    from facecore.models.inference import Session
    from facecore.models.manifest import DetectorSpec

__all__ = ["Detector", "Face", "non_maximum_suppression", "overlap"]


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

    @property
    def roll(self) -> float:
        """Rotation of the face in the image, in degrees clockwise, -180..180.

        The rotation of the least-squares similarity transform of the alignment template onto
        the landmarks; 0 for a face whose landmarks coincide.
        """
        points, template = self.landmarks @ [1, 1j], TEMPLATE @ [1, 1j]
        turn = np.vdot(template - template.mean(), points - points.mean())
        return float(np.degrees(np.angle(turn)))


def non_maximum_suppression(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    overlap: float,
    inside: float = np.inf,
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Suppress boxes that overlap a better one (greedy non-maximum suppression).

    Parameters
    ----------
    boxes : ndarray, shape (N, 4)
        x1, y1, x2, y2.
    scores : ndarray, shape (N,)
    overlap : float
        Drop boxes whose intersection over union with a better one exceeds this.
    inside : float
        Drop boxes whose intersection with a better one, divided by the smaller of the two areas,
        reaches this: they show parts of a face.

    Yields
    ------
    (int, ndarray of shape (N,))
        Index of each box to keep, best first, and its intersection over union with every box.
    """
    areas = _area(boxes[:, 2:] - boxes[:, :2])
    order = np.argsort(-scores, kind="stable")
    while order.size:
        best = int(order[0])
        (overlaps,), (contained,) = _overlaps(boxes[best : best + 1], boxes, areas)
        yield best, overlaps
        order = order[1:]
        order = order[(overlaps[order] <= overlap) & (contained[order] < inside)]


def _area(sides: NDArray[np.float32]) -> NDArray[np.float32]:
    sides = np.maximum(sides, 0)
    return np.asarray(sides[..., 0] * sides[..., 1])


def _overlaps(
    some: NDArray[np.float32], boxes: NDArray[np.float32], areas: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Divide intersections of boxes (M, 4) and (N, 4) by the union and by the smaller area."""
    some = some[:, None]
    corner = np.minimum(some[..., 2:], boxes[:, 2:])
    shared = _area(corner - np.maximum(some[..., :2], boxes[:, :2]))
    own = _area(some[..., 2:] - some[..., :2])
    least = np.finfo(np.float32).tiny
    union, smaller = areas + (own - shared), np.minimum(areas, own)
    over_union, over_smaller = (
        shared / np.maximum(union, least),
        shared / np.maximum(smaller, least),
    )
    return over_union.astype(np.float32, copy=False), over_smaller.astype(np.float32, copy=False)


def overlap(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Compute the intersection over union of two boxes (4,)."""
    area = _area(other[None, 2:] - other[None, :2])
    return float(_overlaps(one[None], other[None], area)[0][0, 0])


# The fine pass detects parts of a face that spans 206 to 337 of its pixels.  The coarse pass sees
# the whole face and supports no part of it.  Conversely, a small candidate of the coarse pass is
# larger in the fine pass, which judges it better.  Measured on labelled scenes
# (python -m benchmarks detection).
SUPPORT = 0.3  # least score and intersection over union of a candidate that supports another
_SEEN_COARSE = 16  # pixels of the coarse input from which a fine candidate needs support
_SEEN_FINE = 160  # pixels of the fine input up to which a coarse candidate needs support
_INSIDE = 0.6
_SMALLEST = 20  # longer side of a box, in pixels of the fine input


def _supported(
    coarse: Candidates, fine: Candidates, coarse_scale: float, fine_scale: float
) -> Candidates:
    """Pool the candidates of two scales; drop those that the other scale should see but misses."""
    (boxes, some), scores = (points[:, :2].reshape(-1, 4) for points, _ in (fine, coarse)), fine[1]
    areas = _area(boxes[:, 2:] - boxes[:, :2])
    keep_fine = (boxes[:, 2] - boxes[:, 0]) * coarse_scale < _SEEN_COARSE
    keep_coarse = (some[:, 2] - some[:, 0]) * fine_scale > _SEEN_FINE
    for start in range(0, len(some), 256):  # bounds the memory
        met = _overlaps(some[start : start + 256], boxes, areas)[0] >= SUPPORT
        keep_fine |= met.any(axis=0)
        keep_coarse[start : start + 256] |= met.any(axis=1)
    points = np.concatenate([coarse[0][keep_coarse], fine[0][keep_fine]])
    return points, np.concatenate([coarse[1][keep_coarse], scores[keep_fine]])


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

    The detector drops a candidate of the coarse or the fine pass if the other pass should see it
    too but misses it.  It also drops boxes inside a better one, and boxes whose longer side is
    below 20 pixels of the fine pass.

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

    @property
    def upright_confidence(self) -> float:
        """Confidence that turned faces seldom reach; 0 if not measured."""
        return self._family.upright

    def detect(self, image: Picture) -> list[Face]:
        """Detect all faces of a picture, largest first."""
        return self._complete(image, self._candidates(image, self.coarse_scale(image)))

    def prominent_each(self, images: Sequence[Picture]) -> list[list[Face]]:
        """Detect the faces of each image in as few passes as needed, largest first.

        Small faces next to the largest may be missing; `detect` finds them.  Boxes and landmarks
        may differ by a fraction of a pixel from those of `detect`, which pools the coarse and the
        fine pass.  All coarse passes run before any decoding, which keeps the code and data of
        the decoder in the processor's caches.
        """
        outputs = [self._forward(image, self.coarse_scale(image)) for image in images]
        coarse = [self._decode(passed) for passed in outputs]
        prominent: list[list[Face]] = []
        for image, found in zip(images, coarse, strict=True):
            faces = [] if self._doubtful(image, found) else self._select(image, found)
            if not faces:
                faces = self._complete(image, found)
                if len(images) > 1:
                    image.release_pixels()  # only the fine pass needs the finer pixels
            prominent.append(faces)
        return prominent

    def _doubtful(self, image: Picture, coarse: Candidates) -> bool:
        """Whether a coarse candidate needs the support of the fine pass."""
        if self.fine_scale(image) <= self.coarse_scale(image):
            return False
        points, scores = coarse
        widths = (points[:, 1, 0] - points[:, 0, 0]) * self.fine_scale(image)
        return bool(((widths <= _SEEN_FINE) & (scores >= self._spec.threshold)).any())

    def _complete(self, image: Picture, coarse: Candidates) -> list[Face]:
        found = coarse
        scales = self.coarse_scale(image), self.fine_scale(image)
        if scales[1] > scales[0]:
            found = _supported(coarse, self._candidates(image, scales[1]), *scales)
        if faces := self._select(image, found):
            return faces
        side = self._passes.wide
        scale = side / max(image.height, image.width)
        return self._select(image, self._candidates(image, scale, margin=side // 2))

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
            passed.outputs,
            passed.size,
            self._spec.output.strides,
            min(self._spec.threshold, SUPPORT),
        )
        return (points - passed.margin) * passed.ratio, scores

    def _select(self, image: Picture, found: Candidates) -> list[Face]:
        points, scores = found
        sure = scores >= self._spec.threshold
        values, scores = points[sure].reshape(-1, 14), scores[sure]
        faces = []
        overlap, blend = self._family.overlap, self._family.blend
        kept = non_maximum_suppression(values[:, :4], scores, overlap, _INSIDE)
        for best, overlaps in kept:
            mean = values[best]
            if blend is not None:
                same = overlaps > blend
                same[best] = True  # a box of zero area does not overlap even itself
                weights = scores[same]
                mean = (weights @ values[same]) / weights.sum()
            faces.append(Face(mean[:4], mean[4:].reshape(5, 2), float(scores[best])))
        smallest = _SMALLEST / min(1.0, self.fine_scale(image))
        faces = [face for face in faces if (face.box[2:] - face.box[:2]).max() >= smallest]
        return sorted(faces, key=lambda face: face.size, reverse=True)
