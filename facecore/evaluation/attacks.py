"""Error rates of presentation attack detection, named as in ISO/IEC 30107-3.

Scores are attack scores, 0..100, like `Liveness.attack_score`: at or above the threshold a
presentation is classified as an attack.  NaN means no response.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from facecore.errors import InvalidParameter
from facecore.evaluation.intervals import Rate, rate

__all__ = ["AttackErrors", "attack_errors", "auc", "bpcer_at_apcer"]


@dataclass(frozen=True, slots=True)
class AttackErrors:
    """Classification errors of presentations at one threshold.

    Attributes
    ----------
    apcer : dict of str to Rate
        Attack presentation classification error rate by species of instrument (print,
        replay, mask ...): share of attacks classified as bona fide.
    bpcer : Rate
        Bona fide presentation classification error rate: share classified as attacks.
    apnrr : dict of str to Rate
        Attack presentation non-response rate by species.
    bpnrr : Rate
        Bona fide presentation non-response rate.
    threshold : float
    """

    apcer: dict[str, Rate]
    bpcer: Rate
    apnrr: dict[str, Rate]
    bpnrr: Rate
    threshold: float

    @property
    def worst_species(self) -> str:
        """Species with the highest APCER; the first in case of a tie."""
        return max(self.apcer, key=lambda name: self.apcer[name].value)

    @property
    def worst_apcer(self) -> Rate:
        """APCER of the worst species, the figure to report: a mean would hide it."""
        return self.apcer[self.worst_species]


def attack_errors(
    attacks: ArrayLike,
    species: Iterable[str],
    bona_fide: ArrayLike,
    threshold: float,
) -> AttackErrors:
    """Compute APCER by species, BPCER and the non-response rates at a threshold.

    Parameters
    ----------
    attacks : array_like, shape (N,)
        Attack scores of attack presentations; NaN for no response.
    species : iterable of str, N of them
        Instrument of each attack.
    bona_fide : array_like, shape (M,)
        Attack scores of bona fide presentations; NaN for no response.
    threshold : float

    Notes
    -----
    As in the standard, classification error rates are shares of the classified presentations;
    non-responses are reported separately.  The intervals are Wilson's and assume independent
    presentations.
    """
    scores, kinds = np.asarray(attacks, np.float64), np.array([str(kind) for kind in species])
    live = np.asarray(bona_fide, np.float64)
    if not len(scores) or len(scores) != len(kinds) or not len(live):
        raise InvalidParameter(
            "attack errors need attacks, a species for each, and bona fide presentations"
        )
    apcer, apnrr = {}, {}
    for kind in np.unique(kinds):
        name, own = str(kind), scores[kinds == kind]
        answered = own[~np.isnan(own)]
        if not len(answered):
            raise InvalidParameter(f"no attack of the species {name!r} gave a response")
        apcer[name] = rate(answered < threshold)
        apnrr[name] = rate(np.isnan(own))
    heard = ~np.isnan(live)
    if not heard.any():
        raise InvalidParameter("no bona fide presentation gave a response")
    return AttackErrors(apcer, rate(live[heard] >= threshold), apnrr, rate(~heard), threshold)


def bpcer_at_apcer(
    attacks: ArrayLike, species: Iterable[str], bona_fide: ArrayLike, apcer: float
) -> AttackErrors:
    """Compute the errors at the highest threshold with a worst APCER of at most `apcer`.

    With 0.1, 0.05 and 0.01 this is the standard's BPCER10, BPCER20 and BPCER100.
    """
    if not 0 <= apcer <= 1:
        raise InvalidParameter(f"apcer is {apcer!r}, must be within 0..1")
    scores, kinds = np.asarray(attacks, np.float64), np.array([str(kind) for kind in species])
    limits = []
    for kind in np.unique(kinds):
        own = np.sort(scores[(kinds == kind) & ~np.isnan(scores)])
        allowed = int(np.floor(apcer * len(own) * (1 + 1e-12)))
        # Attacks pass only below the threshold, so it can equal the first score that must not pass.
        limits.append(own[allowed] if allowed < len(own) else np.inf)
    return attack_errors(attacks, kinds.tolist(), bona_fide, float(min(limits, default=np.inf)))


def auc(attacks: ArrayLike, bona_fide: ArrayLike) -> float:
    """Area under the ROC curve: share of pairs in which the attack has the higher score."""
    high, low = np.asarray(attacks, np.float64), np.sort(np.asarray(bona_fide, np.float64))
    below, upto = (np.searchsorted(low, high, side) for side in ("left", "right"))
    return float((below + upto).mean() / (2 * len(low)))
