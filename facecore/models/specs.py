"""Parts of a pack's manifest: input tensors, output tensors and calibration."""

from __future__ import annotations

import base64
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from facecore.models.schema import require

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

# The documented meaning of a score: false accept rate -> score.
SCORE_AT_FAR = {0.01: 70.0, 0.001: 80.0, 0.0001: 90.0}

# How the false accept rate is extrapolated beyond the last measured knot.
TAILS = ("exponential",)

MAX_SIDE = 8192  # pixels of a model's input

# Numbers that `facecore.face.recognizability.features` takes from a crop.
CROP_FEATURES = 63

# Rounding errors dominate smaller scales; exp(-2 / 0.003) does not underflow a float.
LEAST_TAIL_SCALE = 0.003


@dataclass(frozen=True, slots=True)
class InputSpec:
    """A model's input tensor: ``x = (pixel - mean) / std``, pixels 0–255.

    Parameters
    ----------
    name : str
        Name of the input in the ONNX graph.
    layout : {"NCHW", "NHWC"}
        Order of the axes.
    channels : {"BGR", "RGB"}
        Order of the colour channels; `mean` and `std` are in this order too.
    height, width : int
        In pixels.  0 means any size, for a detector any multiple of its largest stride.
        For a detector of a fixed size, every picture is fitted into a canvas of that size.
    mean, std : tuple of float
        Per channel, in units of 0–255 pixels.
    """

    name: str
    layout: str
    channels: str
    height: int
    width: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        require(bool(self.name), "name", "must not be empty")
        require(self.layout in ("NCHW", "NHWC"), "layout", "must be NCHW or NHWC")
        require(self.channels in ("BGR", "RGB"), "channels", "must be BGR or RGB")
        for field, side in (("height", self.height), ("width", self.width)):
            require(0 <= side <= MAX_SIDE, field, f"must be within 0..{MAX_SIDE}")
        require(min(self.std) > 0, "std", "must be above zero")


@dataclass(frozen=True, slots=True)
class DetectorOutput:
    """The detector's output tensors, in the order that its decoder expects.

    Parameters
    ----------
    names : tuple of str
        Names in the ONNX graph, by head, then by rising stride.  Heads of ``yunet``: class,
        objectness, box, landmarks; of ``scrfd``: score, box, landmarks; of ``retinaface``, with
        one output for all strides: box, probabilities, landmarks.
    strides : tuple of int
        Input pixels per cell of each feature map, in rising order.
    """

    names: tuple[str, ...]
    strides: tuple[int, ...]

    def __post_init__(self) -> None:
        require(bool(self.names) and all(self.names), "names", "must name every output")
        require(len(set(self.names)) == len(self.names), "names", "must differ from each other")
        require(bool(self.strides) and min(self.strides) > 0, "strides", "must be above zero")
        require(_rising(self.strides), "strides", "must rise")


@dataclass(frozen=True, slots=True)
class EmbedderOutput:
    """The embedder's output tensor.

    Parameters
    ----------
    name : str
        Name in the ONNX graph.
    dimension : int
        Number of components of an embedding.
    """

    name: str
    dimension: int

    def __post_init__(self) -> None:
        require(bool(self.name), "name", "must not be empty")
        require(1 <= self.dimension <= 65536, "dimension", "must be within 1..65536")


@dataclass(frozen=True, slots=True)
class LivenessOutput:
    """The liveness network's output tensor.

    Parameters
    ----------
    name : str
        Name in the ONNX graph.  For each face, the output holds the log odds of an attack and
        the number added to the weight of each cue.
    """

    name: str

    def __post_init__(self) -> None:
        require(bool(self.name), "name", "must not be empty")


@dataclass(frozen=True, slots=True)
class CueModel:
    """Logistic regression over the recapture cues and the network's log odds.

    ``z = bias + network * logit + sum((weight + given) * clip((cue - mean) / scale, -4, 4))``,
    where the network gives ``logit`` and ``given``, one value per cue.  The attack score is
    ``100 / (1 + exp(-z))``.

    Parameters
    ----------
    names : tuple of str
        Cues of `facecore.face.pad_features`.
    mean, scale, weight : tuple of float
        One value per cue.
    network : float
        Weight of the network's log odds.
    bias : float
        Constant term.
    """

    names: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weight: tuple[float, ...]
    network: float
    bias: float

    def __post_init__(self) -> None:
        require(bool(self.names), "names", "must not be empty")
        require(len(set(self.names)) == len(self.names), "names", "must differ from each other")
        for field in ("mean", "scale", "weight"):
            found = len(getattr(self, field))
            require(found == len(self.names), field, f"must hold {len(self.names)}, holds {found}")
        require(min(self.scale) > 0, "scale", "must be above zero")


@dataclass(frozen=True, slots=True)
class AttributesOutput:
    """Output tensors of the age and gender network.

    Parameters
    ----------
    age : str
        Name of the output with the probabilities of ages 0, 1, 2 … years, (N, `ages`).
    gender : str
        Name of the output with the probability of being female, (N,).
    ages : int
        Number of age classes.
    """

    age: str
    gender: str
    ages: int

    def __post_init__(self) -> None:
        require(bool(self.age), "age", "must not be empty")
        require(bool(self.gender), "gender", "must not be empty")
        require(2 <= self.ages <= 200, "ages", "must be within 2..200")


@dataclass(frozen=True, slots=True)
class MeasuredRate:
    """A measured rate and its 95 % confidence interval.

    Parameters
    ----------
    value, low, high : float
        0–1.
    """

    value: float
    low: float
    high: float

    def __post_init__(self) -> None:
        ordered = 0 <= self.low <= self.value <= self.high <= 1
        require(ordered, "value", "must hold 0 <= low <= value <= high <= 1")


@dataclass(frozen=True, slots=True)
class Knot:
    """One point of the map from cosine similarity to score.

    Parameters
    ----------
    score : float
        0–100.
    far : float
        False accept rate (FMR) at this similarity, 0–1.
    similarity : float
        Cosine, −1–1.
    low, high : float
        95 % confidence interval of the false accept rate counted at this similarity.
    measured : bool
        True if there were enough comparisons to count the rate; False if the similarity is
        extrapolated by the tail.
    fnmr : MeasuredRate, optional
        Share of genuine comparisons below this similarity; absent if there were none.
    """

    score: float
    far: float
    similarity: float
    low: float
    high: float
    measured: bool = True
    fnmr: MeasuredRate | None = None

    def __post_init__(self) -> None:
        require(0 < self.score < 100, "score", "must lie between 0 and 100; 100 is identity")
        require(0 < self.far <= 1, "far", "must be above 0 and at most 1")
        require(-1 < self.similarity < 1, "similarity", "must lie between -1 and 1")
        require(0 <= self.low <= self.high <= 1, "low", "must hold 0 <= low <= high <= 1")


@dataclass(frozen=True, slots=True)
class CalibrationSpec:
    """False accept rates of an embedder, measured on a named set of face pairs.

    Parameters
    ----------
    dataset : str
        Name of the data set.
    method : str
        Measurement protocol.
    identities, genuine, impostor : int
        Number of people, genuine comparisons and impostor comparisons behind every knot.
    tail : {"exponential"}
        Model of the rate beyond the last measured knot.
    tail_scale : float
        Increase of similarity over which the rate falls by a factor of e.
    knots : tuple of Knot
        Sorted by score; includes FAR 1 %, 0.1 % and 0.01 % at scores 70, 80 and 90.  Measured
        knots come first.
    embedder : str, optional
        SHA-256 of the measured embedder; a pack with another embedder rejects the table.
    """

    dataset: str
    method: str
    identities: int
    genuine: int
    impostor: int
    tail: str
    tail_scale: float
    knots: tuple[Knot, ...]
    embedder: str | None = None

    def __post_init__(self) -> None:
        for field in ("identities", "genuine", "impostor"):
            require(getattr(self, field) >= 0, field, "must not be negative")
        require(self.tail in TAILS, "tail", f"must be one of {', '.join(TAILS)}")
        within = LEAST_TAIL_SCALE <= self.tail_scale <= 1
        require(within, "tail_scale", f"must be within {LEAST_TAIL_SCALE}..1")
        require(_rising(knot.score for knot in self.knots), "knots", "score must rise")
        require(_rising(knot.similarity for knot in self.knots), "knots", "similarity must rise")
        require(_rising(-knot.far for knot in self.knots), "knots", "far must fall")
        scores = {knot.far: knot.score for knot in self.knots}
        for far, score in SCORE_AT_FAR.items():
            require(scores.get(far) == score, "knots", f"far {far} is required, at score {score}")
        measured = [knot.measured for knot in self.knots]
        require(measured[0], "knots", "the first must be measured")
        require(
            measured == sorted(measured, reverse=True), "knots", "measured knots must come first"
        )


@dataclass(frozen=True, slots=True)
class RecognizabilitySpec:
    """Network that scores how well the embedder can read a face, from its vector and its crop.

    Parameters
    ----------
    dataset : str
        Pictures that it was fitted on.
    limit : float
        Lowest recognisability that is accepted, 0–100.
    refused : float
        Share of ordinary pictures of the data set below the limit, 0–1.
    hidden : int
        Width of the hidden layer.
    weights : str
        Weights and biases as float16 in base64; see `facecore.face.recognizability`.
    embedder : str
        SHA-256 of the measured embedder; a pack with another embedder rejects the section.
    allowance : float
        Largest cosine to subtract from the similarity of two faces that are both hard to read,
        0–1.
    """

    dataset: str
    limit: float
    refused: float
    hidden: int
    weights: str
    embedder: str
    allowance: float = 0.0

    def __post_init__(self) -> None:
        require(bool(self.dataset.strip()), "dataset", "must not be empty")
        require(0 < self.limit < 100, "limit", "must lie between 0 and 100")
        require(0 <= self.refused <= 1, "refused", "must be within 0..1")
        require(1 <= self.hidden <= 256, "hidden", "must be within 1..256")
        require(0 <= self.allowance <= 1, "allowance", "must be within 0..1")
        try:
            finite = bool(np.isfinite(self.numbers()).all())
        except ValueError:
            finite = False
        require(finite, "weights", "must be finite float16 numbers in base64")

    def numbers(self) -> NDArray[np.float32]:
        """Decode `weights` into one row: (D + 63, H), (H,), (H,) and (1,), for dimension D."""
        coded = base64.b64decode(self.weights, validate=True)
        return np.frombuffer(coded, "<f2").astype(np.float32)


def _rising(values: Iterable[float]) -> bool:
    return all(a < b for a, b in itertools.pairwise(values))
