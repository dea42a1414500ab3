"""Results of an evaluation, as numbers and as lines of text."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from facecore.errors import NoFaceDetected
from facecore.evaluation.all_pairs import Histograms
from facecore.evaluation.intervals import Rate

__all__ = [
    "FolderResult",
    "GroupRates",
    "Identification",
    "LfwResult",
    "LondonResult",
    "OperatingPoint",
    "PairsResult",
    "Result",
]


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """Error rates at one score.

    Attributes
    ----------
    score, similarity : float
        Threshold on both scales.
    nominal_fmr : float
        False match rate according to the pack's calibration.
    extrapolated : bool
        Whether `nominal_fmr` lies beyond the calibration's last measured rate.
    fmr, fnmr : Rate or None
        Measured rates; None without such comparisons.
    """

    score: float
    similarity: float
    nominal_fmr: float
    extrapolated: bool
    fmr: Rate | None
    fnmr: Rate | None

    def line(self) -> str:
        """Format as a line of text."""
        parts = [f"FMR {self.fmr or 'not measured'}, nominal {100 * self.nominal_fmr:.3g} %"]
        if self.fnmr:
            parts.append(f"FNMR {self.fnmr}")
        return "; ".join(parts)


@dataclass(frozen=True, slots=True)
class GroupRates:
    """Rates within a group: impostor pairs are two people of the group.

    Attributes
    ----------
    attribute, group : str
        For example ``gender``, ``female``.
    images, people : int
    points : tuple of OperatingPoint
        Empty if the group has no pair.
    """

    attribute: str
    group: str
    images: int
    people: int
    points: tuple[OperatingPoint, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Base class of the results of all protocols.

    Attributes
    ----------
    images : int
        Number of pictures.
    without_vector : dict of str to int
        Number of pictures without a vector, by error code.
    threshold : float
        Threshold of the engine, 0..100.
    points : tuple of OperatingPoint
        Rates at the documented threshold scores and at the engine's threshold.
    groups : tuple of GroupRates
        Empty if no groups are known.
    notes : tuple of str
        Limitations of the numbers.
    seconds : dict of str to float
        Wall time of ``embedding`` and ``comparing``.
    histograms : Histograms
        Similarities behind `points`; not in `as_dict`.
    """

    images: int
    without_vector: dict[str, int]
    threshold: float
    points: tuple[OperatingPoint, ...]
    groups: tuple[GroupRates, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict, compare=False)
    histograms: Histograms = field(repr=False, compare=False)

    def as_dict(self) -> dict[str, Any]:
        """Convert to JSON-serialisable values."""
        plain = asdict(self, dict_factory=_without_histograms)
        return {**plain, "without_face": self.without_face}

    @property
    def without_face(self) -> int:
        """Number of readable pictures without a detected face."""
        return self.without_vector.get(NoFaceDetected.__name__, 0)

    @property
    def losses(self) -> str:
        """Pictures without a vector: ``2 of 8 pictures (NoFaceDetected 1, UnreadableImage 1)``."""
        why = ", ".join(f"{code} {count:,}" for code, count in self.without_vector.items())
        lost = f"{sum(self.without_vector.values()):,} of {self.images:,} pictures"
        return f"{lost} ({why})" if why else lost

    def lines(self) -> list[str]:
        """Format as lines of text."""
        lines = self.own_lines()
        lines += [f"at score {point.score:<10g} {point.line()}" for point in self.points]
        for group in self.groups:
            lines.append(f"{group.attribute} {group.group}: {group.images:,} pictures")
            lines += [f"  at score {point.score:<8g} {point.line()}" for point in group.points]
        lines.append(f"no vector for       {self.losses}")
        return lines + [f"note: {note}" for note in self.notes]

    def own_lines(self) -> list[str]:
        """Format the protocol's lines: a name of up to 19 characters, the value from column 20."""
        return []


@dataclass(frozen=True, slots=True, kw_only=True)
class LfwResult(Result):
    """Result on Labeled Faces in the Wild, View 2, and on all pairs of its pictures.

    Attributes
    ----------
    accuracy, deviation : float
        Mean over the folds and its standard error, 0..1.
    fold_accuracy : tuple of float
    tar_at_far : dict of float to Rate
        True accept rate over the listed pairs for each false accept rate.
    fmr_at_threshold, fnmr_at_threshold : float
        Error rates over the listed pairs at the engine's threshold.
    pairs, skipped : int
        Listed pairs, and those with an image without a vector, which the accuracy counts as wrong.
    genuine_pairs, impostor_pairs : int
        Numbers of all pairs of pictures, the basis of `points` and `groups`.
    """

    accuracy: float
    deviation: float
    fold_accuracy: tuple[float, ...]
    tar_at_far: dict[float, Rate]
    fmr_at_threshold: float
    fnmr_at_threshold: float
    pairs: int
    skipped: int
    genuine_pairs: int
    impostor_pairs: int

    def own_lines(self) -> list[str]:
        """Format the protocol's part of `lines`."""
        return [
            f"accuracy            {self.accuracy:.2%} ± {self.deviation:.2%} "
            f"({self.pairs:,} pairs, {len(self.fold_accuracy)} folds)",
            *_tar_lines(self.tar_at_far),
            f"at the threshold    FMR {self.fmr_at_threshold:.3%}, "
            f"FNMR {self.fnmr_at_threshold:.2%} of the listed pairs",
            f"pairs skipped       {self.skipped}",
            _all_pairs_line(self.genuine_pairs, self.impostor_pairs),
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class LondonResult(Result):
    """Result on the Face Research Lab London Set, neutral against smiling.

    Attributes
    ----------
    genuine, genuine_passing : int
        Numbers of genuine pairs.
    impostor, impostor_passing : int
        Numbers of ordered pairs of a neutral and another person's smiling picture.  Pairs with
        a picture without a face count as not passing.
    lowest_genuine : float
        Lowest score of the genuine pairs that could be compared.
    """

    genuine: int
    genuine_passing: int
    impostor: int
    impostor_passing: int
    lowest_genuine: float

    def own_lines(self) -> list[str]:
        """Format the protocol's part of `lines`."""
        share = self.impostor_passing / self.impostor
        return [
            f"genuine passing     {self.genuine_passing} of {self.genuine} "
            f"at score {self.threshold:g} (lowest {self.lowest_genuine:.1f})",
            f"impostors passing   {self.impostor_passing} of {self.impostor:,} ({share:.2%})",
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairsResult(Result):
    """Result on the pairs of a file.

    Attributes
    ----------
    genuine, impostor : int
    skipped : int
        Pairs with a picture without a vector: genuine ones count as non-matches, impostor ones
        are excluded.
    tar_at_far : dict of float to Rate
        With Wilson intervals, because a pairs file names no people.
    """

    genuine: int
    impostor: int
    skipped: int
    tar_at_far: dict[float, Rate]

    def own_lines(self) -> list[str]:
        """Format the protocol's part of `lines`."""
        return [
            f"pairs               {self.genuine:,} of one person, {self.impostor:,} of two",
            *_tar_lines(self.tar_at_far),
            f"pairs skipped       {self.skipped}",
        ]


@dataclass(frozen=True, slots=True)
class Identification:
    """Result of searches in a gallery of the first picture of each person with two or more.

    Attributes
    ----------
    gallery, mated, non_mated : int
        Numbers of templates, mated searches and non-mated searches.
    rank_one : Rate
        Share of mated searches with the mate at rank 1, regardless of its score.
    cmc : tuple of float
        Cumulative match characteristic at ranks 1..20.
    fnir : Rate
        Share of mated searches whose mate is below the threshold or not at rank 1.
    fpir : Rate or None
        Share of non-mated searches with a candidate; it grows with the gallery.
    """

    gallery: int
    mated: int
    non_mated: int
    rank_one: Rate
    cmc: tuple[float, ...]
    fnir: Rate
    fpir: Rate | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderResult(Result):
    """Result on all pairs of a folder of people.

    Attributes
    ----------
    people : int
        Number of people with at least one vector.
    genuine_pairs, impostor_pairs : int
    identification : Identification or None
        None if no person has two pictures.
    """

    people: int
    genuine_pairs: int
    impostor_pairs: int
    identification: Identification | None

    def own_lines(self) -> list[str]:
        """Format the protocol's part of `lines`."""
        lines = [
            f"people              {self.people:,}",
            _all_pairs_line(self.genuine_pairs, self.impostor_pairs),
        ]
        if found := self.identification:
            lines += [
                f"searches            {found.mated:,} mated, {found.non_mated:,} non-mated, "
                f"gallery of {found.gallery:,}",
                f"rank 1              {found.rank_one}",
                f"at the threshold    FNIR {found.fnir}; FPIR {found.fpir or 'not measured'}",
            ]
        return lines


def _tar_lines(tar_at_far: dict[float, Rate]) -> list[str]:
    return [f"{f'TAR at FAR {100 * far:g} %':<19} {share}" for far, share in tar_at_far.items()]


def _all_pairs_line(genuine: int, impostor: int) -> str:
    return f"all pairs           {genuine:,} of one person, {impostor:,} of two"


def _without_histograms(items: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: value for name, value in items if name != "histograms"}
