"""Align faces by five landmarks to the 112x112 crop that embedders are trained on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facecore.errors import InvalidParameter, NoFaceDetected
from facecore.images.picture import Picture

__all__ = ["CROP_SIZE", "TEMPLATE", "SimilarityTransform", "align", "cut", "estimate", "warp"]

CROP_SIZE = 112

# Right eye, left eye, nose tip, right and left mouth corner (the subject's right is on the
# image's left) in pixels of the crop: the template of ArcFace (Deng et al. 2019,
# doi:10.1109/CVPR.2019.00482), shared by all public 112x112 face networks.
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

# Largest residual of a face.  On 800 pictures of LFW, many of them half-profile, the median
# residual is 0.11 and the largest 0.47; collinear points have at least 0.62.
_MAX_RESIDUAL = 0.6

# Squares of larger coordinates overflow; no picture is that large.
_FARTHEST = 1e100

# OpenCV before version 5 cannot warp a picture with a side of this length.
_WARPED_SIDE = 2**15 - 1


@dataclass(frozen=True, slots=True)
class SimilarityTransform:
    """Rotation, uniform scale and translation: ``x' = matrix[:, :2] @ x + matrix[:, 2]``.

    Attributes
    ----------
    matrix : ndarray, shape (2, 3), float64
        NaN if the estimation failed.
    residual : float
        Root-mean-square distance of the mapped points from the target, divided by the
        target's root-mean-square spread; 0 is a perfect fit.
    failure : str
        Why the estimation failed; empty if it succeeded.
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

    In two dimensions, Umeyama's solution [1]_ needs no singular value decomposition.  With the
    centred points as complex numbers :math:`x, y`, rotation and scale are one factor::

        m = sum(conj(x) y) / sum(|x|^2),   t = mean(Y) - m mean(X)

    The points are mirrored if the best factor for :math:`conj(x)` is larger.

    Parameters
    ----------
    points, target : ndarray, shape (N, 2), N >= 2
        Corresponding points, in pixels.

    Returns
    -------
    SimilarityTransform
        False in a boolean context, with the reason in ``failure``, if the points are
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
    # Plain Python numbers: NumPy takes several times as long for five points.
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
    # Relative to the coordinates, because points far from the origin lose digits.
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
    """Crop the face, upright and centred, to 112x112 pixels.

    Parameters
    ----------
    image : Picture, or ndarray, shape (H, W, 3), uint8, BGR
        A `Picture` is decoded no finer than the crop needs.
    landmarks : ndarray, shape (5, 2)
        In pixels of the full `image`, in the order of ``TEMPLATE``.

    Returns
    -------
    ndarray, shape (112, 112, 3), uint8
        Black outside the image, as in the training of the embedders.

    Raises
    ------
    NoFaceDetected
        The landmarks are degenerate; the message says why.
    InvalidParameter
        The landmarks are not five points.
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
    return cut(picture, transform.matrix, CROP_SIZE)


def cut(picture: Picture, matrix: NDArray[np.float64], side: int) -> NDArray[np.uint8]:
    """Crop a square of a picture, decoded no finer than the square needs.

    Parameters
    ----------
    picture : Picture
    matrix : ndarray, shape (2, 3), float64
        Maps pixels of the full picture to pixels of the square, see `warp`.
    side : int
        Side of the square, in pixels.

    Returns
    -------
    ndarray, shape (side, side, 3), uint8, BGR
        Black outside the picture.
    """
    pixels, reduction = picture.reduced(math.hypot(matrix[0, 0], matrix[1, 0]))
    return warp(pixels, _of_blocks(matrix, np.zeros(2), reduction), (side, side))


def _of_blocks(
    matrix: NDArray[np.float64], origin: NDArray[np.floating | np.integer], block: int
) -> NDArray[np.float64]:
    """Adapt `matrix` to a picture that starts at `origin` and is reduced by `block`.

    Coordinates refer to pixel centres: u = (x - origin + 0.5) / block - 0.5.
    """
    of_blocks = matrix.copy()
    of_blocks[:, 2] += matrix[:, :2] @ (origin + (block - 1) / 2)
    of_blocks[:, :2] *= block
    return of_blocks


def warp(
    image: NDArray[np.uint8], matrix: NDArray[np.float64], size: tuple[int, int]
) -> NDArray[np.uint8]:
    """Crop a picture by a similarity transform, without aliasing.

    Parameters
    ----------
    image : ndarray, shape (H, W, 3), uint8
    matrix : ndarray, shape (2, 3), float64
        Maps pixels of `image` to pixels of the result: rotation, uniform scale and translation.
    size : tuple of int
        Width and height of the result.

    Returns
    -------
    ndarray, shape (size[1], size[0], 3), uint8
        Black outside the image.
    """
    import cv2

    # Bilinear sampling reads 2x2 pixels and would skip pixels when it reduces.  Averaging first
    # brings the region to between one and two times the target scale.  The bound on `shrink`
    # prevents integer overflow.
    scale = math.hypot(matrix[0, 0], matrix[1, 0])
    shrink = max(1, int(min(1 / scale, 2.0**15)))
    height, width = image.shape[:2]
    if shrink > 1 or max(height, width) >= _WARPED_SIDE:
        corners = np.array([[0, 0], [size[0], 0], [0, size[1]], size])
        inside = (corners - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
        x1, y1 = np.clip(np.floor(inside.min(axis=0)) - 2 * shrink, 0, (width, height)).astype(int)
        x2, y2 = np.clip(np.ceil(inside.max(axis=0)) + 2 * shrink, 0, (width, height)).astype(int)
        # Whole blocks keep the scale equal in x and y.
        columns, rows = (x2 - x1) // shrink, (y2 - y1) // shrink
        if columns > 0 and rows > 0:
            image = image[y1 : y1 + rows * shrink, x1 : x1 + columns * shrink]
            matrix = _of_blocks(matrix, np.array([x1, y1]), shrink)
            if shrink > 1:
                resized = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA)
                image = np.asarray(resized, np.uint8)
    crop = cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR)
    return np.asarray(crop, np.uint8)
