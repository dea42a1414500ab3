"""Error rates of presentation attack detection, by the names of ISO/IEC 30107-3.

Scores are attack scores, 0..100, as `Liveness.attack_score`: at or above the threshold a
presentation is classified as an attack.  NaN stands for no response.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from facecore.errors import InvalidParameter
from facecore.evaluation.intervals import Rate, rate

__all__ = ["AttackErrors", "attack_errors", "bpcer_at_apcer"]


@dataclass(frozen=True, slots=True)
class AttackErrors:
    """Classification errors of presentations at one threshold.

    Attributes
    ----------
    apcer : dict of str to Rate
        Attack presentation classification error rate by species of instrument (print,
        replay, mask ...): attacks that are classified as bona fide.
    bpcer : Rate
        Bona fide presentation classification error rate: bona fide classified as attacks.
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
        """The species that passes most often; of equals, the first."""
        return max(self.apcer, key=lambda name: self.apcer[name].value)

    @property
    def worst_apcer(self) -> Rate:
        """APCER of the worst species: the figure to report; a mean would hide it."""
        return self.apcer[self.worst_species]


def attack_errors(
    attacks: ArrayLike,
    species: Iterable[str],
    bona_fide: ArrayLike,
    threshold: float,
    *,
    bona_fide_people: ArrayLike | None = None,
) -> AttackErrors:
    """APCER by species, BPCER and the non-response rates at a threshold.

    Parameters
    ----------
    attacks : array_like, shape (N,)
        Attack scores of attack presentations; NaN for no response.
    species : iterable of str, N of them
        What each attack was made with.
    bona_fide : array_like, shape (M,)
        Attack scores of bona fide presentations; NaN for no response.
    threshold : float
    bona_fide_people : array_like, shape (M,), optional
        Who presented, for an interval by bootstrap of people; Wilson's without it.

    Notes
    -----
    As in the standard's formulas, classification errors are shares of the presentations that
    were classified; what gave no response is reported on its own.
    """
    scores, kinds = np.asarray(attacks, np.float64), np.array([str(kind) for kind in species])
    live = np.asarray(bona_fide, np.float64)
    if not len(scores) or len(scores) != len(kinds) or not len(live):
        raise InvalidParameter("attack errors need attacks with their species, and bona fide ones")
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
    people = None if bona_fide_people is None else np.asarray(bona_fide_people)
    return AttackErrors(
        apcer,
        rate(live[heard] >= threshold, None if people is None else people[heard]),
        apnrr,
        rate(~heard, people),
        threshold,
    )


def bpcer_at_apcer(
    attacks: ArrayLike, species: Iterable[str], bona_fide: ArrayLike, apcer: float
) -> AttackErrors:
    """The errors at the highest threshold whose worst APCER is at most `apcer`.

    With 0.1, 0.05 and 0.01 this is the standard's BPCER10, BPCER20 and BPCER100.
    """
    if not 0 <= apcer <= 1:
        raise InvalidParameter(f"apcer is {apcer!r}, must be within 0..1")
    scores, kinds = np.asarray(attacks, np.float64), np.array([str(kind) for kind in species])
    limits = []
    for kind in np.unique(kinds):
        own = np.sort(scores[(kinds == kind) & ~np.isnan(scores)])
        allowed = int(np.floor(apcer * len(own) * (1 + 1e-12)))
        # Attacks strictly below the threshold pass: it may equal the first that must not.
        limits.append(own[allowed] if allowed < len(own) else np.inf)
    return attack_errors(attacks, kinds.tolist(), bona_fide, float(min(limits, default=np.inf)))
