"""Settings of a service that the document leaves open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from facecore.errors import InvalidParameter

__all__ = ["ServiceConfig"]


@dataclass(frozen=True, slots=True)
class ServiceConfig:
    """Settings of a `FaceService`.

    Parameters
    ----------
    allow_private_addresses : bool, default False
        Also fetch pictures from addresses that are not public: loopback and the local network.
    download_timeout : float, default 5.0
        Total time to download one picture, in seconds.
    gate : callable, optional
        Called with the operation's name before any other check.  It refuses a request by raising
        `OperationError` with a documented code.
    threshold : float, optional
        Lowest score at which two faces count as one person, 0..100; the engine's by default.
    search_far : float, default 0.01
        Share of new people who would match any face of the searched groups.  A stored face is
        found if its score reaches both `threshold` and the score for this share.  The more faces
        are stored, the stricter the search.
    liveness_threshold : float, optional
        Lowest attack score that counts as an attack, 0..100; the engine's by default.
    any_orientation : bool, default False
        Apply the limits on resolution to a picture's longer and shorter side, not to its height
        and width.  Landscape pictures then have the same limits as portraits.
    exact_biz_id : bool, default True
        Require exactly 32 characters in the MerchantBizId of FaceCrossCompareIntl, like its
        document.  If False, accept 1 to 32, like the other operations.

    Raises
    ------
    InvalidParameter
        A value is out of range or of the wrong type.
    """

    allow_private_addresses: bool = False
    download_timeout: float = 5.0
    gate: Callable[[str], object] | None = None
    threshold: float | None = None
    search_far: float = 0.01
    liveness_threshold: float | None = None
    any_orientation: bool = False
    exact_biz_id: bool = True

    def __post_init__(self) -> None:
        for name in ("allow_private_addresses", "any_orientation", "exact_biz_id"):
            if not isinstance(getattr(self, name), bool):
                raise InvalidParameter(f"{name} is {getattr(self, name)!r:.80}, must be a bool")
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if value is None and name in ("threshold", "liveness_threshold"):
                continue
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not (number and low <= value <= high):  # a NaN fails too
                raise InvalidParameter(f"{name} is {value!r:.80}, must be within {low}..{high}")
        if self.gate is not None and not callable(self.gate):
            raise InvalidParameter(
                "gate is not callable", "give a function that takes the operation's name"
            )


_RANGES = (
    ("download_timeout", 0.001, 3600),
    ("threshold", 0, 100),
    ("search_far", 1e-9, 0.5),
    ("liveness_threshold", 0, 100),
)
