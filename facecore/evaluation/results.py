"""What an evaluation found: numbers for programs, lines for people."""

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
    """Both error rates at one score.

    Attributes
    ----------
    score, similarity : float
        The threshold, on both scales.
    nominal_fmr : float
        What the pack's calibration promises.
    extrapolated : bool
        Whether that lies beyond the calibration's last measured rate.
    fmr, fnmr : Rate or None
        Measured; None where there is no such comparison.
    """

    score: float
    similarity: float
    nominal_fmr: float
    extrapolated: bool
    fmr: Rate | None
    fnmr: Rate | None

    def line(self) -> str:
        """The same for people."""
        parts = [f"FMR {self.fmr or 'not measured'}, nominal {100 * self.nominal_fmr:.3g} %"]
        if self.fnmr:
            parts.append(f"FNMR {self.fnmr}")
        return "; ".join(parts)


@dataclass(frozen=True, slots=True)
class GroupRates:
    """Rates among the pictures of one group: impostors are two people of that group.

    Attributes
    ----------
    attribute, group : str
        As ``gender``, ``female``.
    images, people : int
    points : tuple of OperatingPoint
        Empty where the group is too small to make a pair.
    """

    attribute: str
    group: str
    images: int
    people: int
    points: tuple[OperatingPoint, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What all protocols share.

    Attributes
    ----------
    images : int
        Pictures.
    without_vector : dict of str to int
        How many of them gave no vector, by the code of the error.
    threshold : float
        The engine's, 0..100.
    points : tuple of OperatingPoint
        At the scores of the documented table and at the engine's threshold.
    groups : tuple of GroupRates
        Empty where no groups are known.
    notes : tuple of str
        What to know before the numbers are believed.
    seconds : dict of str to float
        Wall time of ``embedding`` and ``comparing``.
    histograms : Histograms
        Of the similarities that `points` are measured on; not in `as_dict`.
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
        """Plain numbers, for JSON."""
        plain = asdict(self, dict_factory=_without_histograms)
        return {**plain, "without_face": self.without_face}

    @property
    def without_face(self) -> int:
        """Pictures that could be read and in which no face was found."""
        return self.without_vector.get(NoFaceDetected.__name__, 0)

    @property
    def losses(self) -> str:
        """``2 of 8 pictures (NoFaceDetected 1, UnreadableImage 1)``: those without a vector."""
        why = ", ".join(f"{code} {count:,}" for code, count in self.without_vector.items())
        lost = f"{sum(self.without_vector.values()):,} of {self.images:,} pictures"
        return f"{lost} ({why})" if why else lost

    def lines(self) -> list[str]:
        """The same for people."""
        lines = self.own_lines()
        lines += [f"at score {point.score:<10g} {point.line()}" for point in self.points]
        for group in self.groups:
            lines.append(f"{group.attribute} {group.group}: {group.images:,} pictures")
            lines += [f"  at score {point.score:<8g} {point.line()}" for point in group.points]
        lines.append(f"no vector for       {self.losses}")
        return lines + [f"note: {note}" for note in self.notes]

    def own_lines(self) -> list[str]:
        """What only this protocol says: a name of at most 19 letters, and from column 20 on."""
        return []


@dataclass(frozen=True, slots=True, kw_only=True)
class LfwResult(Result):
    """Labeled Faces in the Wild, View 2, and all pairs of its pictures.

    Attributes
    ----------
    accuracy, deviation : float
        Mean over the folds and its standard error, 0..1.
    fold_accuracy : tuple of float
    tar_at_far : dict of float to Rate
        True accept rate over the listed pairs, by false accept rate; by bootstrap of people.
    fmr_at_threshold, fnmr_at_threshold : float
        Over the listed pairs, at the engine's own threshold.
    pairs, skipped : int
        A pair is skipped where an image has no vector; the accuracy counts it as wrong.
    genuine_pairs, impostor_pairs : int
        All pairs of the pictures, which `points` and `groups` are measured on.
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
        """The protocol's own part of `lines`."""
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
    """Neutral against smiling of the Face Research Lab London Set.

    Attributes
    ----------
    genuine, genuine_passing : int
        Pairs of one person.
    impostor, impostor_passing : int
        Ordered pairs of one person's neutral and another's smiling picture.  Pairs of a picture
        without a face count as not passing.
    lowest_genuine : float
        Score of the worst genuine pair that could be compared.
    """

    genuine: int
    genuine_passing: int
    impostor: int
    impostor_passing: int
    lowest_genuine: float

    def own_lines(self) -> list[str]:
        """The protocol's own part of `lines`."""
        share = self.impostor_passing / self.impostor
        return [
            f"genuine passing     {self.genuine_passing} of {self.genuine} "
            f"at score {self.threshold:g} (lowest {self.lowest_genuine:.1f})",
            f"impostors passing   {self.impostor_passing} of {self.impostor:,} ({share:.2%})",
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairsResult(Result):
    """The pairs of a file.

    Attributes
    ----------
    genuine, impostor : int
    skipped : int
        Pairs with a picture that has no vector: a genuine one counts as not matching, an
        impostor one is left out.
    tar_at_far : dict of float to Rate
        Wilson's intervals, as a pairs file names no people.
    """

    genuine: int
    impostor: int
    skipped: int
    tar_at_far: dict[float, Rate]

    def own_lines(self) -> list[str]:
        """The protocol's own part of `lines`."""
        return [
            f"pairs               {self.genuine:,} of one person, {self.impostor:,} of two",
            *_tar_lines(self.tar_at_far),
            f"pairs skipped       {self.skipped}",
        ]


@dataclass(frozen=True, slots=True)
class Identification:
    """Searches of a gallery that holds the first picture of everybody who has another one.

    Attributes
    ----------
    gallery, mated, non_mated : int
        Templates, searches for people who are enrolled, and for people who are not.
    rank_one : Rate
        Share of the mated searches whose mate comes first, whatever its score.
    cmc : tuple of float
        Share by rank 1..20.
    fnir : Rate
        Mated searches whose mate does not come first at or above the threshold.
    fpir : Rate or None
        Non-mated searches with a candidate at the threshold; it grows with the gallery.
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
    """All pairs of a folder of people.

    Attributes
    ----------
    people : int
        Of whom a picture gave a vector.
    genuine_pairs, impostor_pairs : int
    identification : Identification or None
        None where nobody has two pictures.
    """

    people: int
    genuine_pairs: int
    impostor_pairs: int
    identification: Identification | None

    def own_lines(self) -> list[str]:
        """The protocol's own part of `lines`."""
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
