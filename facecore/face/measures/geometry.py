"""Size, position and pose of the head, from the five landmarks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from facecore.face.alignment import TEMPLATE, estimate
from facecore.face.detection import Face

__all__ = ["geometry", "head_pose", "single_face"]

# Eyes, nose tip and mouth corners in eye distances; x to the image's right, y down, z away from
# the camera: MediaPipe's canonical face model (Apache-2.0), vertices 33+133, 263+362, 1, 61, 291.
_MODEL = np.array(
    [[-0.5, 0, 0], [0.5, 0, 0], [0, 0.595, -0.6], [-0.39, 1.105, -0.09], [0.39, 1.105, -0.09]]
)
_CENTRED = _MODEL - _MODEL.mean(0)
_SOLVE = _CENTRED @ np.linalg.inv(_CENTRED.T @ _CENTRED)  # (5, 3)

# Ratio of the distances eye line to chin and eye line to mouth: the median of
# (box's lower edge - eyes) / (mouth - eyes) over 2,853 pictures of LFW.
_CHIN = 1.78

_CROP_EYES = float(np.hypot(*(TEMPLATE[1] - TEMPLATE[0])))


def head_pose(landmarks: NDArray[np.floating]) -> tuple[float, float, float]:
    """Estimate yaw, pitch and roll in degrees from the five landmarks.

    Least squares yields the 2x3 matrix M that maps the centred model to the centred landmarks.
    The singular value decomposition of M gives the nearest scaled rotation, and hence the angles.
    The model is one mean face and landmarks move with the expression, so errors reach about
    ten degrees: use the angles to rank pictures, not to measure heads.

    Parameters
    ----------
    landmarks : ndarray, shape (5, 2)

    Returns
    -------
    yaw : float
        Positive if the face turns to the image's right, -90..90.
    pitch : float
        Positive if the face looks down, -90..90.
    roll : float
        Positive if the face tilts clockwise, -180..180.

    References
    ----------
    .. [1] D. F. DeMenthon and L. S. Davis, "Model-based object pose in 25 lines of code",
           IJCV 15, 1995, doi:10.1007/BF01450852
    """
    points = np.asarray(landmarks, np.float64)
    M = (points - points.mean(0)).T @ _SOLVE
    U, _, Vt = np.linalg.svd(M, full_matrices=False)
    R = U @ Vt
    roll = math.atan2(R[1, 0], R[0, 0])
    turn = np.array([[math.cos(roll), math.sin(roll)], [-math.sin(roll), math.cos(roll)]])
    level = turn @ R  # the face with its eye line level
    yaw = math.atan2(-level[0, 2], level[0, 0])
    pitch = math.asin(float(np.clip(-level[1, 2], -1, 1)))
    return math.degrees(yaw), math.degrees(pitch), math.degrees(roll)


def geometry(face: Face, height: int, width: int) -> dict[str, float]:
    """Compute the raw measures of size, position and pose.

    Parameters
    ----------
    face : Face
    height, width : int
        Height and width of the picture in pixels.

    Returns
    -------
    dict
        With d the distance between the eyes and T the distance from the eye line to the chin
        (estimated from the mouth; OFIQ uses a chin landmark):

        ``eye_distance``: d / cos(yaw) in pixels.
        ``resolution``: ``eye_distance`` divided by the 35.2 pixels of the aligned crop.
        ``head_size``: T / height.
        ``margin_left``, ``margin_right``: picture edge to the nearer eye, in units of d.
        ``margin_above``, ``margin_below``: picture edge to the eye line, in units of T.
        ``yaw``, ``pitch``, ``roll``: degrees, see `head_pose`.
        ``landmark_fit``: residual of the similarity transform to the frontal template, see
        `facecore.face.alignment.SimilarityTransform`; it grows as the head turns.
        ``detection``: the detector's confidence, 0..1.
    """
    points = face.landmarks.astype(np.float64)
    eyes, mouth = points[:2].mean(0), points[3:].mean(0)
    distance = max(float(np.hypot(*(points[1] - points[0]))), 1e-6)
    chin = max(_CHIN * float(np.hypot(*(mouth - eyes))), 1e-6)
    yaw, pitch, roll = head_pose(points)
    eyes_apart = distance / max(math.cos(math.radians(yaw)), 0.2)
    residual = estimate(points, TEMPLATE).residual
    return {
        "eye_distance": eyes_apart,
        "resolution": eyes_apart / _CROP_EYES,
        "head_size": chin / height,
        "margin_left": float(points[:2, 0].min()) / distance,
        "margin_right": (width - float(points[:2, 0].max())) / distance,
        "margin_above": float(eyes[1]) / chin,
        "margin_below": (height - float(eyes[1])) / chin,
        "yaw": yaw,
        "pitch": pitch,
        "roll": roll,
        "landmark_fit": residual if math.isfinite(residual) else 1.0,
        "detection": face.confidence,
    }


def single_face(face: Face, others: Sequence[Face]) -> float:
    """Divide the area of the second largest box by that of the largest; 0 for a single face.

    This is the measure SingleFacePresent of ISO/IEC 29794-5:2025, as implemented in OFIQ.
    """
    areas = sorted((float(np.prod(f.box[2:] - f.box[:2])) for f in (face, *others)), reverse=True)
    return areas[1] / areas[0] if len(areas) > 1 and areas[0] > 0 else 0.0
