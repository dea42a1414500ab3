"""Five landmarks to the 112x112 crop that every embedder was trained on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facecore.errors import InvalidParameter, NoFaceDetected
from facecore.images.picture import Picture

__all__ = ["CROP_SIZE", "TEMPLATE", "SimilarityTransform", "align", "estimate", "warp"]

CROP_SIZE = 112

# Right eye, left eye, nose tip, right and left mouth corner (the subject's right is on the
# image's left) in pixels of the crop: the template of ArcFace (Deng et al. 2019,
# doi:10.1109/CVPR.2019.00482), which all public 112x112 face networks share.
TEMPLATE: NDArray[np.float64] = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ]
)
TEMPLATE.flags.writeable = False

# Five points that fit the template worse than this are no face: on 800 pictures of LFW, many
# half turned away, the median residual is 0.11 and the largest 0.47; points on one line have
# 0.62 and more.
_MAX_RESIDUAL = 0.6

# Beyond this, squares of coordinates overflow; no picture is as large.
_FARTHEST = 1e100


@dataclass(frozen=True, slots=True)
class SimilarityTransform:
    """A rotation, a uniform scale and a shift: ``x' = matrix[:, :2] @ x + matrix[:, 2]``.

    Attributes
    ----------
    matrix : ndarray, shape (2, 3), float64
        NaN where the estimation failed.
    residual : float
        Root-mean-square distance of the mapped points from the target, as a share of the
        target's own root-mean-square spread; 0 is a perfect fit.
    failure : str
        Why there is no transform; empty where there is one.
    """

    matrix: NDArray[np.float64]
    residual: float
    failure: str = ""

    @property
    def scale(self) -> float:
        """Size of one source pixel in target pixels."""
        return math.hypot(self.matrix[0, 0], self.matrix[1, 0])

    def __bool__(self) -> bool:
        return not self.failure


def estimate(points: NDArray[np.floating], target: NDArray[np.floating]) -> SimilarityTransform:
    r"""Least-squares similarity transform of `points` onto `target`.

    In the plane Umeyama's solution [1]_ needs no singular value decomposition.  With the centred
    points as complex numbers :math:`x, y`, turning and scaling is one product::

        m = sum(conj(x) y) / sum(|x|^2),   t = mean(Y) - m mean(X)

    and the points are mirrored where the best product for :math:`conj(x)` is the larger.

    Parameters
    ----------
    points, target : ndarray, shape (N, 2), N >= 2
        Corresponding points, in pixels.

    Returns
    -------
    SimilarityTransform
        False in a boolean context, with the reason in ``failure``, where the points are
        not finite, coincide, or are mirrored.

    References
    ----------
    .. [1] S. Umeyama, "Least-squares estimation of transformation parameters between two
           point patterns", IEEE TPAMI 13(4), 1991, doi:10.1109/34.88573

    Examples
    --------
    >>> import numpy as np
    >>> square = np.array([[0.0, 0], [2, 0], [2, 2], [0, 2]])
    >>> estimate(square, 3 * square + 1).matrix.round(6) + 0.0
    array([[3., 0., 1.],
           [0., 3., 1.]])
    >>> estimate(np.zeros((4, 2)), square).failure
    'the points coincide'
    """
    # Python's own numbers: for five points NumPy takes several times as long.
    X = [complex(*point) for point in np.asarray(points, np.float64).tolist()]
    Y = [complex(*point) for point in np.asarray(target, np.float64).tolist()]
    if not all(_is_near(x) for x in X):  # a NaN fails too
        return _failed("a point is not finite")
    if not all(_is_near(y) for y in Y):
        return _failed("a target point is not finite")
    n, farthest = len(X), max(max(abs(x.real), abs(x.imag)) for x in X)
    mean_x, mean_y = sum(X) / n, sum(Y) / n
    x, y = [z - mean_x for z in X], [z - mean_y for z in Y]
    variance = sum(abs(z) ** 2 for z in x)
    spread = sum(abs(z) ** 2 for z in y)
    # Relative to the coordinates: points far from the origin lose digits.
    if variance <= n * (1e-6 * (1.0 + farthest)) ** 2:
        return _failed("the points coincide")
    if spread == 0:
        return _failed("the target's points coincide")
    turned = sum(a.conjugate() * b for a, b in zip(x, y, strict=True))
    mirrored = sum(a * b for a, b in zip(x, y, strict=True))
    # The singular values of the covariance are half the sum and the difference of the two.
    if abs(mirrored) - abs(turned) > 1e-6 * (abs(mirrored) + abs(turned)):
        return _failed("the points are mirrored")
    m = turned / variance
    t = mean_y - m * mean_x
    error = sum(abs(m * a - b) ** 2 for a, b in zip(x, y, strict=True))
    matrix = np.array([[m.real, -m.imag, t.real], [m.imag, m.real, t.imag]])
    return SimilarityTransform(matrix, math.sqrt(error / spread))


def _is_near(point: complex) -> bool:
    return abs(point.real) < _FARTHEST and abs(point.imag) < _FARTHEST


def _failed(reason: str) -> SimilarityTransform:
    return SimilarityTransform(np.full((2, 3), np.nan), math.nan, reason)


def align(image: Picture | NDArray[np.uint8], landmarks: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Cut out the face upright, centred and 112x112.

    Parameters
    ----------
    image : Picture, or ndarray, shape (H, W, 3), uint8, BGR
        A picture is decoded no finer than the crop needs.
    landmarks : ndarray, shape (5, 2)
        In pixels of the whole `image`, in the order of ``TEMPLATE``.

    Returns
    -------
    ndarray, shape (112, 112, 3), uint8
        What lies outside the image is black, as it was when the embedders were trained.

    Raises
    ------
    NoFaceDetected
        The landmarks are degenerate; the message says how.
    InvalidParameter
        They are not five points.
    """
    if np.shape(landmarks) != TEMPLATE.shape:
        raise InvalidParameter(f"landmarks have shape {np.shape(landmarks)}, must be (5, 2)")
    transform = estimate(landmarks, TEMPLATE)
    if not transform:
        raise NoFaceDetected(f"the face cannot be aligned: {transform.failure}")
    if transform.residual > _MAX_RESIDUAL:
        raise NoFaceDetected(
            "the face cannot be aligned: its landmarks do not fit a face "
            f"(residual {transform.residual:.2f}, limit {_MAX_RESIDUAL})"
        )
    picture = Picture.of(image) if isinstance(image, np.ndarray) else image
    pixels, reduction = picture.reduced(transform.scale)
    matrix = _of_blocks(transform.matrix, np.zeros(2), reduction)
    return warp(pixels, matrix, (CROP_SIZE, CROP_SIZE))


def _of_blocks(
    matrix: NDArray[np.float64], origin: NDArray[np.floating | np.integer], block: int
) -> NDArray[np.float64]:
    """`matrix` for a picture of whole blocks of pixels, which begins at `origin`.

    Pixels are counted by their centres: u = (x - origin + 0.5) / block - 0.5.
    """
    of_blocks = matrix.copy()
    of_blocks[:, 2] += matrix[:, :2] @ (origin + (block - 1) / 2)
    of_blocks[:, :2] *= block
    return of_blocks


def warp(
    image: NDArray[np.uint8], matrix: NDArray[np.float64], size: tuple[int, int]
) -> NDArray[np.uint8]:
    """Cut out a part of a picture under a similarity transform, without aliasing.

    Parameters
    ----------
    image : ndarray, shape (H, W, 3), uint8
    matrix : ndarray, shape (2, 3), float64
        Maps pixels of `image` to pixels of the answer: a rotation, a uniform scale and a shift.
    size : tuple of int
        Width and height of the answer.

    Returns
    -------
    ndarray, shape (size[1], size[0], 3), uint8
        Black outside the image.
    """
    import cv2

    # Bilinear sampling reads 2x2 pixels, so on the way down it skips some: the part of the
    # picture that is cut out is first averaged to between one and two times its scale.
    # No face is larger than the picture by far: the bound keeps the arithmetic in integers.
    scale = math.hypot(matrix[0, 0], matrix[1, 0])
    shrink = max(1, int(min(1 / scale, 2.0**15)))
    corners = np.array([[0, 0], [size[0], 0], [0, size[1]], size])
    inside = (corners - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
    height, width = image.shape[:2]
    x1, y1 = np.clip(np.floor(inside.min(axis=0)) - 2 * shrink, 0, (width, height)).astype(int)
    x2, y2 = np.clip(np.ceil(inside.max(axis=0)) + 2 * shrink, 0, (width, height)).astype(int)
    # Whole blocks only, so that the scale is the same in x and y.
    columns, rows = (x2 - x1) // shrink, (y2 - y1) // shrink
    if columns > 0 and rows > 0:
        # Only the part, also at full scale: before version 5, OpenCV warps nothing wider than 2^15.
        image = image[y1 : y1 + rows * shrink, x1 : x1 + columns * shrink]
        matrix = _of_blocks(matrix, np.array([x1, y1]), shrink)
        if shrink > 1:
            resized = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA)
            image = np.asarray(resized, np.uint8)
    crop = cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR)
    return np.asarray(crop, np.uint8)
