"""Where the faces are: boxes and five landmarks from a YuNet-family network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from facecore.models.inference import run, to_tensor

if TYPE_CHECKING:
    from facecore.images.picture import Picture
    from facecore.models.inference import Session
    from facecore.models.manifest import DetectorSpec

__all__ = ["Detector", "Face", "decode", "non_maximum_suppression"]

Candidates = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Points (N, 7, 2), two corners of the box and five landmarks, and scores (N,)."""


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
        0..1; geometric mean of the network's class and objectness probabilities.
    """

    box: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    confidence: float

    @property
    def size(self) -> float:
        """Square root of the box's area, in pixels."""
        width, height = self.box[2:] - self.box[:2]
        return float(np.sqrt(max(width, 0) * max(height, 0)))


def decode(
    outputs: Sequence[NDArray[np.float32]],
    width: int,
    strides: tuple[int, ...],
    threshold: float,
) -> Candidates:
    """Turn the head tensors of one image into candidate faces.

    A cell at (column, row) of stride S says: score = sqrt(cls * obj), centre =
    (column + dx, row + dy) * S, size = exp(dw, dh) * S, landmark = (column + x, row + y) * S
    (YuNet: Wu et al. 2023, doi:10.1007/s11633-023-1423-y).

    Parameters
    ----------
    outputs : sequence of ndarray, float32
        cls (1, A, 1), obj (1, A, 1), bbox (1, A, 4) and kps (1, A, 10), each for every stride.
    width : int
        Of the network's input, a multiple of the largest stride.
    strides : tuple of int
        Pixels per cell of each feature map.
    threshold : float
        Candidates below it, above 0, are dropped before anything else is computed.

    Returns
    -------
    points : ndarray, shape (N, 7, 2), float32
        Top left and bottom right corner of the box, and five landmarks, in pixels of the input.
    scores : ndarray, shape (N,), float32
        0..1.
    """
    found = [np.empty((0, 15), np.float32)]
    for k, stride in enumerate(strides):
        cls, obj, bbox, kps = (head[0] for head in outputs[k :: len(strides)])
        # No factor within 0..1 is less than its product with another; a NaN passes no comparison.
        (likely,) = np.nonzero(np.minimum(cls, obj)[:, 0] >= 0.99 * threshold**2)
        if not likely.size:
            continue
        scores = np.sqrt(cls[likely].clip(0, 1) * obj[likely].clip(0, 1))
        cell = np.stack([likely % (width // stride), likely // (width // stride)], axis=1)
        cell = cell.astype(np.float32)
        box, points = bbox[likely], kps[likely]
        centre = (cell + box[:, :2]) * stride
        half = np.exp(np.minimum(box[:, 2:], 10.0)) * (stride / 2)
        points = (points + np.tile(cell, 5)) * stride
        rows = np.concatenate([centre - half, centre + half, points, scores], axis=1)
        found.append(rows[scores[:, 0] >= threshold])
    rows = np.concatenate(found)
    return rows[:, :14].reshape(-1, 7, 2), rows[:, 14]


def non_maximum_suppression(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], overlap: float
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Greedy suppression of boxes that overlap a better one.

    Parameters
    ----------
    boxes : ndarray, shape (N, 4)
        x1, y1, x2, y2.
    scores : ndarray, shape (N,)
    overlap : float
        A box whose intersection over union with a better one is above this is dropped.

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
    """What the network said of an image, and how its input lies in the image."""

    outputs: Sequence[NDArray[np.float32]]
    width: int
    margin: int
    ratio: NDArray[np.float32]


class Detector:
    """Finds faces from 20 pixels up to ones that overrun the picture.

    Parameters
    ----------
    session : Session
        A network with YuNet's heads.
    spec : DetectorSpec
        The manifest's part on it.

    Notes
    -----
    Three passes, each only where it can add something.  The coarse one shows the network the
    picture reduced to `COARSE` pixels (or enlarged to `SMALL`), where a face of any ordinary
    share of the picture is found.  The fine one, at up to `FINE` pixels, adds the small faces
    of large pictures; in a picture larger than that, 20 pixels are counted after its reduction.
    Where neither finds a face, the wide one adds a margin around a small copy, so that a face
    which overruns the frame has its centre in a cell and something on all sides.

    Several cells see the same face.  The ones whose boxes overlap the best one's by more than
    `BLEND` are averaged, weighted by their scores (Bazarevsky et al. 2019, arXiv:1907.05047):
    with YuNet, whose landmarks jitter from cell to cell, that parts genuine from impostor
    comparisons more widely.
    """

    COARSE = 320
    SMALL = 160
    FINE = 1920
    WIDE = 160
    OVERLAP = 0.3
    BLEND = 0.5

    def __init__(self, session: Session, spec: DetectorSpec) -> None:
        self._session = session
        self._spec = spec

    def detect(self, image: Picture) -> list[Face]:
        """All faces of a picture, largest first."""
        return self._complete(image, self._coarse(image))

    def largest(self, image: Picture) -> Face | None:
        """The largest face, or None; one pass where one is enough.

        The fine pass runs only where the coarse one found nothing, so the box and landmarks
        may differ by a fraction of a pixel from those of `detect`, which pools both.
        """
        return self.largest_each([image])[0]

    def largest_each(self, images: Sequence[Picture]) -> list[Face | None]:
        """The largest face of each image, as from `largest`.

        All coarse passes come first: what reads their outputs then runs from the caches.
        """
        outputs = [self._forward(image, self.coarse_scale(image)) for image in images]
        coarse = [self._decode(passed) for passed in outputs]
        largest: list[Face | None] = []
        for image, found in zip(images, coarse, strict=True):
            faces = self._select([found])
            if not faces:
                faces = self._complete(image, found)
                if len(images) > 1:
                    image.release_pixels()  # what was decoded for it alone
            largest.append(next(iter(faces), None))
        return largest

    def _complete(self, image: Picture, coarse: Candidates) -> list[Face]:
        longest = max(image.height, image.width)
        passes = [coarse]
        if longest > self.COARSE:
            passes.append(self._candidates(image, self.fine_scale(image)))
        if faces := self._select(passes):
            return faces
        wide = self._candidates(image, self.WIDE / longest, margin=self.WIDE // 2)
        return self._select([wide])

    def _coarse(self, image: Picture) -> Candidates:
        return self._candidates(image, self.coarse_scale(image))

    def coarse_scale(self, image: Picture) -> float:
        """Of the pass that comes first."""
        longest = max(image.height, image.width)
        return float(min(max(1.0, self.SMALL / longest), self.COARSE / longest))

    def fine_scale(self, image: Picture) -> float:
        """Of the pass for small faces."""
        return min(1.0, self.FINE / max(image.height, image.width))

    def _candidates(self, image: Picture, scale: float, margin: int = 0) -> Candidates:
        return self._decode(self._forward(image, scale, margin))

    def _forward(self, image: Picture, scale: float, margin: int = 0) -> _Pass:
        import cv2

        pixels, reduction = image.reduced(scale)
        # Of a reduced picture the last pixels may reach beyond the whole one.
        height, width = (reduction * side for side in pixels.shape[:2])
        inner_width, inner_height = max(1, round(width * scale)), max(1, round(height * scale))
        if (inner_height, inner_width) != pixels.shape[:2]:
            # Up to a factor of two bilinear sampling skips no pixel, and takes a fifth of the time.
            kind = cv2.INTER_AREA if 2 * inner_width < pixels.shape[1] else cv2.INTER_LINEAR
            resized = cv2.resize(pixels, (inner_width, inner_height), interpolation=kind)
            pixels = np.asarray(resized, np.uint8)
        step = max(self._spec.output.strides)
        outer_width = -(-(inner_width + 2 * margin) // step) * step
        outer_height = -(-(inner_height + 2 * margin) // step) * step
        canvas = outer_height, outer_width
        tensor = to_tensor(pixels[None], self._spec.input, canvas=canvas, margin=margin)
        feed = {self._spec.input.name: tensor}
        outputs = run(self._session, self._spec.output.names, feed, self._spec.file)
        ratio = np.array([width / inner_width, height / inner_height], np.float32)
        return _Pass(outputs, outer_width, margin, ratio)

    def _decode(self, passed: _Pass) -> Candidates:
        points, scores = decode(
            passed.outputs, passed.width, self._spec.output.strides, self._spec.threshold
        )
        return (points - passed.margin) * passed.ratio, scores

    def _select(self, passes: Sequence[Candidates]) -> list[Face]:
        points, scores = (np.concatenate(parts) for parts in zip(*passes, strict=True))
        values = points.reshape(-1, 14)
        faces = []
        for best, overlaps in non_maximum_suppression(values[:, :4], scores, self.OVERLAP):
            same = overlaps > self.BLEND
            same[best] = True  # a box without an area overlaps nothing, not even itself
            weights = scores[same]
            mean = (weights @ values[same]) / weights.sum()
            faces.append(Face(mean[:4], mean[4:].reshape(5, 2), float(scores[best])))
        return sorted(faces, key=lambda face: face.size, reverse=True)
