"""Estimate the roll of faces from the pixels, and correct detections that miss it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from facecore._utils.blas import multiply
from facecore.face.alignment import cut
from facecore.face.detection import Detector, Face, overlap
from facecore.images.picture import Picture

__all__ = ["estimate_rolls", "find_turned", "right"]

Plane = NDArray[np.float32]

SIDE = 32  # pixels of the network's square input
BINS = 16  # classes of the network, 22.5 degrees apart
REACH = 1.2  # side of the square in sizes of the face's box
CERTAIN = 0.6  # least certainty that counts against the detector
CONFIRMS = 0.3  # least certainty that counts for it

# Degrees.  Beyond it, the detectors place the landmarks too close to those of an upright face.
MOST_ROLL = 20.0

_SOFTENING = 4.0  # grey levels, keeps flat patches finite

# If the pixels show with certainty that a face is upright, its confidence may be this much below
# `Detector.upright_confidence`.
DOUBT = 0.04

# Least intersection over union of a face's box and the box found in its turned region.
SAME_FACE = 0.5

# Rolls at which the detector searches the region of an unsure face again.
_TURNS = (90.0, 180.0, -90.0)

# Side of the region that is searched again: in pixels, and in sizes of the box.
_AGAIN, _AGAIN_REACH = 256, 2.7


def patch_matrix(
    box: NDArray[np.floating], roll: float, side: int, reach: float
) -> NDArray[np.float64]:
    """Map pixels of the picture to a square of `side` pixels around a box, turned upright.

    Parameters
    ----------
    box : ndarray, shape (4,)
        x1, y1, x2, y2.
    roll : float
        Degrees, clockwise; the patch is turned back by this angle.
    side : int
        Side of the patch, in pixels.
    reach : float
        Side of the patch in sizes of the box (square root of its area).

    Returns
    -------
    ndarray, shape (2, 3), float64
    """
    centre = (box[:2] + box[2:]).astype(np.float64) / 2
    width, height = np.maximum(box[2:] - box[:2], 1e-3)
    scale = side / (reach * math.sqrt(float(width) * float(height)))
    cos, sin = scale * math.cos(math.radians(roll)), scale * math.sin(math.radians(roll))
    turn = np.array([[cos, sin], [-sin, cos]])
    return np.column_stack([turn, (side - 1) / 2 - turn @ centre])


@cache
def _disc() -> NDArray[np.bool_]:
    across = np.arange(SIDE) - (SIDE - 1) / 2
    return np.asarray(np.hypot(across[:, None], across) <= SIDE / 2)


def normalise(luma: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale the disc inside a square to mean 0 and deviation 1, with 0 outside.

    The disc shows the same part of a face at any rotation.

    Parameters
    ----------
    luma : ndarray, shape (32, 32), float32
        0..255.

    Returns
    -------
    ndarray, shape (32, 32), float32
    """
    inside = luma[_disc()]
    return np.where(_disc(), (luma - inside.mean()) / (inside.std() + _SOFTENING), np.float32(0))


@cache
def _network() -> dict[str, NDArray[np.float32]]:
    with files("facecore.face").joinpath("orientation.npz").open("rb") as stream:
        stored = np.load(stream, allow_pickle=False)
        return {name: stored[name].astype(np.float32) for name in stored.files}


def _halve(x: Plane, weight: Plane, bias: Plane) -> Plane:
    """3x3 convolution of stride 2 and ReLU: (N, H, W, C) to (N, H/2, W/2, K)."""
    count, height, width, channels = x.shape
    padded = np.zeros((count, height + 2, width + 2, channels), np.float32)
    padded[:, 1:-1, 1:-1] = x
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))[:, ::2, ::2]
    flat = windows.reshape(count * height * width // 4, channels * 9)
    return np.asarray(np.maximum(multiply(flat, weight) + bias, 0)).reshape(
        count, height // 2, width // 2, -1
    )


def estimate_rolls(
    pictures: Sequence[Picture], boxes: Sequence[NDArray[np.floating]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Estimate the roll of faces from the pixels inside their boxes.

    The network has three convolutions and one linear layer, and sees each face on a disc of
    32 pixels.  It outputs the probabilities of 16 directions.  The mean vector of the directions
    gives the angle and the certainty.  ``weights/training/orientation.py`` trains the network.

    Parameters
    ----------
    pictures : sequence of Picture
        One for each box.
    boxes : sequence of ndarray, shape (4,)
        x1, y1, x2, y2 in pixels of the full picture.

    Returns
    -------
    rolls : ndarray, shape (N,), float64
        Degrees, positive if the face is turned clockwise, -180..180.
    certainty : ndarray, shape (N,), float64
        Length of the mean vector, 0..1; at least 0.9 for a clear face.
    """
    net = _network()
    x = np.stack([normalise(_luma(*pair)) for pair in zip(pictures, boxes, strict=True)])[..., None]
    for layer in "123":
        x = _halve(x, net["w" + layer], net["b" + layer])
    logits = x.reshape(len(x), -1) @ net["w4"] + net["b4"]
    odds = np.exp(logits - logits.max(axis=1, keepdims=True)).astype(np.float64)
    directions = np.exp(2j * np.pi * np.arange(BINS) / BINS)
    mean = odds @ directions / odds.sum(axis=1)
    return np.degrees(np.angle(mean)), np.abs(mean)


def _luma(picture: Picture, box: NDArray[np.floating]) -> NDArray[np.float32]:
    """Cut out the square around a box, as luma: (32, 32), 0..255."""
    import cv2

    matrix = patch_matrix(box, 0.0, SIDE, REACH)
    pixels, reduction = picture.reduced(float(matrix[0, 0]))
    height, width = pixels.shape[:2]
    side = round(SIDE / float(matrix[0, 0]) / reduction)
    x, y = (round(-float(shift) / float(matrix[0, 0]) / reduction) for shift in matrix[:, 2])
    if 0 <= x <= width - side and 0 <= y <= height - side and SIDE <= side <= 8 * SIDE:
        # These two steps take a fifth of the time of one that averages all pixels.
        part = cv2.resize(pixels[y : y + side, x : x + side], (2 * SIDE, 2 * SIDE))
        patch = cv2.resize(part, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    else:
        patch = cut(picture, matrix, SIDE)
    return np.asarray(cv2.cvtColor(patch, cv2.COLOR_BGR2GRAY), np.float32)


def right(detector: Detector, pictures: Sequence[Picture], faces: Sequence[Face]) -> list[Face]:
    """Give every turned face its true landmarks.

    Detectors are trained on upright faces and place the landmarks of a turned face as if it were
    upright.  If the pixels show a turned face, the detector searches its region again, turned
    upright.

    Parameters
    ----------
    detector : Detector
    pictures : sequence of Picture
        One for each face.
    faces : sequence of Face

    Returns
    -------
    list of Face
        In the same order.  A face that the second search does not find stays as it is.
    """
    # Turned faces seldom reach this confidence, so most faces need no estimate of their roll.
    sure = detector.upright_confidence or math.inf
    righted = list(faces)
    unsure = [
        i for i, f in enumerate(faces) if f.confidence <= sure or abs(f.roll) > 0.3 * MOST_ROLL
    ]
    if unsure:
        rolls, certainty = estimate_rolls(
            [pictures[i] for i in unsure], [faces[i].box for i in unsure]
        )
        for i, roll, known in zip(unsure, rolls.tolist(), certainty.tolist(), strict=True):
            righted[i] = _upright(detector, pictures[i], faces[i], roll, known)
    return righted


def _upright(
    detector: Detector, picture: Picture, face: Face, roll: float, certainty: float
) -> Face:
    """Return the face with its true landmarks, given the network's estimate of its roll."""
    upright = detector.upright_confidence
    agree = max(abs(roll), _apart(roll, face.roll)) <= MOST_ROLL
    certain = certainty >= (CONFIRMS if agree else CERTAIN)
    if face.confidence > (upright if not certain else upright - DOUBT if agree else 1.0):
        return face
    enough = upright - DOUBT if certain else upright
    turned = None if agree else _look_again(detector, picture, face, roll)
    confirmed = turned and certain and _apart(turned.roll, roll) <= MOST_ROLL
    if turned and confirmed and turned.confidence > enough:
        return turned  # its landmarks are better than those of a tilted face
    # The detector's confidence is highest for an upright face.
    best = face
    for turns in ((0.0,), _TURNS):
        looks = [_look_again(detector, picture, face, turn) for turn in turns]
        shown = [one for one in (turned, *looks, best) if one and one is not face]
        best = max(shown, key=lambda one: one.confidence, default=face)
        if best.confidence > enough:
            break
    slight = _apart(best.roll, face.roll) <= MOST_ROLL / 2
    refuted = certainty >= CERTAIN and _apart(best.roll, roll) > 45
    return face if slight or refuted or overlap(best.box, face.box) < SAME_FACE else best


def _apart(one: float, other: float) -> float:
    """Angle between two rolls, 0..180 degrees."""
    return abs((one - other + 180) % 360 - 180)


def _look_again(detector: Detector, picture: Picture, face: Face, roll: float) -> Face | None:
    """Detect the face in the region of `face`, turned back by `roll`; None if there is none."""
    side = _AGAIN / _AGAIN_REACH
    middle = np.full(2, (_AGAIN - 1) / 2)
    best: Face | None = None
    for _ in range(3):
        matrix = patch_matrix(face.box, roll, _AGAIN, _AGAIN_REACH)
        patch = Picture.of(cut(picture, matrix, _AGAIN))
        found = [
            again
            for again in detector.prominent_each([patch])[0]
            if np.linalg.norm(again.box.reshape(2, 2).mean(0) - middle) < side / 2
            and side / 2 < again.size < 2 * side
        ]
        if not found:
            break
        shown = max(found, key=lambda one: one.confidence)
        best = _mapped(shown, matrix)
        if abs(shown.roll) <= MOST_ROLL / 2:
            break
        roll += shown.roll
    return best


def _mapped(face: Face, matrix: NDArray[np.float64]) -> Face:
    """Map a face of a patch back by the patch's `matrix`.

    The new box bounds the turned ellipse inscribed in the found box.  It is exact for quarter
    turns, and the corners do not inflate it for other angles.
    """
    back = np.linalg.inv(matrix[:, :2])
    points = np.vstack([face.box.reshape(2, 2).mean(0), face.landmarks]) - matrix[:, 2]
    points = points @ back.T
    half = np.sqrt(back**2 @ ((face.box[2:] - face.box[:2]).astype(np.float64) / 2) ** 2)
    box = np.concatenate([points[0] - half, points[0] + half])
    return Face(box.astype(np.float32), points[1:].astype(np.float32), face.confidence)


def find_turned(detector: Detector, picture: Picture, found: Sequence[Face] = ()) -> list[Face]:
    """Detect the faces of a picture that lies on its side or upside down, largest first.

    Searches only if `found` is empty or the detector is not sure of its first face.  Selects the
    turn with the most confident face, and keeps the faces whose pixels agree with the turn.  The
    turn applies to the whole picture, so these faces replace all of `found` if their confidences
    have the larger sum: in a crowd, one face in a turned picture is no evidence.

    Returns
    -------
    list of Face
        `found` if the search is not needed, or no turn shows more confident faces.
    """
    least = found[0].confidence if found else 0.0
    if found:
        doubt = 0.0 if abs(found[0].roll) > 45 else DOUBT
        if least > detector.upright_confidence - doubt:
            return list(found)
    pixels, reduction = picture.reduced(detector.coarse_scale(picture))
    pixels, reduction = _averaged(pixels, reduction, detector.fine_scale(picture))
    best: list[Face] = []
    for quarters in (1, 3, 2):
        turned = np.ascontiguousarray(np.rot90(pixels, quarters))
        turned_faces = detector.prominent_each([Picture.of(turned)])[0]
        surest = max((face.confidence for face in turned_faces), default=0.0)
        if surest <= least:
            continue
        least = surest
        matrix = _quarter_turns(quarters, pixels.shape[0], pixels.shape[1], reduction)
        best, roll = [_mapped(face, matrix) for face in turned_faces], 90.0 * quarters
    if not best:
        return list(found)
    rolls, certainty = estimate_rolls([picture] * len(best), [face.box for face in best])
    agree = [_apart(one, roll) < 60 for one in rolls.tolist()] & (certainty >= CERTAIN)
    upright = detector.upright_confidence
    sure = upright - (0.0 if found else DOUBT) if upright else 1.0
    kept = [f for f, true in zip(best, agree, strict=True) if true or f.confidence > sure]
    seen, upright_seen = (sum(f.confidence for f in faces) for faces in (kept, found))
    return kept if seen > upright_seen else list(found)


def _averaged(
    pixels: NDArray[np.uint8], reduction: int, scale: float
) -> tuple[NDArray[np.uint8], int]:
    """Reduce pixels further, as a JPEG decoder would, to `scale` of the picture or larger."""
    import cv2

    block = max((r for r in (2, 4, 8) if r * scale <= 1), default=1) // reduction
    if block <= 1:
        return pixels, reduction
    rows, columns = (max(1, side // block) for side in pixels.shape[:2])
    whole = pixels[: rows * block, : columns * block]
    averaged = cv2.resize(whole, (columns, rows), interpolation=cv2.INTER_AREA)
    return np.asarray(averaged, np.uint8), reduction * block


def _quarter_turns(quarters: int, height: int, width: int, block: int) -> NDArray[np.float64]:
    """Map the full picture to its copy: reduced by `block` to that size, turned by np.rot90."""
    turns = {
        1: [[0, 1, 0], [-1, 0, width - 1]],
        2: [[-1, 0, width - 1], [0, -1, height - 1]],
        3: [[0, -1, height - 1], [1, 0, 0]],
    }
    matrix = np.array(turns[quarters], np.float64)
    matrix[:, 2] += matrix[:, :2] @ np.full(2, (1 / block - 1) / 2)
    matrix[:, :2] /= block
    return matrix
