"""FaceDuplicationCheckIntl: check whether a person is new, matches Target and is live.

The steps are liveness of Source, Source against Target (modes 1 and 2), Source against the
stored faces (modes 0 and 2), the verdict, and registration.  Every step that applies is carried
out and reported, even if an earlier one failed.  The sub-code names one of them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

from facecore.errors import FaceTooSmall, FaceTurned, InvalidParameter, UserExists
from facecore.face.liveness import Liveness
from facecore.face.sample import FaceSample
from facecore.gallery.records import FaceRecord, Match
from facecore.operations.codes import (
    INTERNAL_ERROR,
    INVALID_PARAMETER,
    UNQUALIFIED_PHOTO,
    OperationError,
)
from facecore.operations.context import Context, new_transaction_id
from facecore.operations.parameters import Values, read
from facecore.operations.pictures import PHOTO
from facecore.operations.quality import quality_scores
from facecore.operations.tables import DUPLICATION_CHECK

__all__ = ["DuplicationCheckResult", "SubCode", "run"]

_log = logging.getLogger("facecore.operations")

# The document's 206 concerns the capturing device; this operation never answers with it.
SubCode = Literal["200", "204", "205", "233"]
PASSED: SubCode = "200"
NOT_THE_SAME: SubCode = "204"
ATTACK: SubCode = "205"
FOUND: SubCode = "233"

_MOST_GROUPS = 10


@dataclass(frozen=True, slots=True)
class DuplicationCheckResult:
    """Answer of FaceDuplicationCheckIntl.

    Attributes
    ----------
    passed : bool
        Whether `sub_code` is 200.
    sub_code : {"200", "204", "205", "233"}
        Passed; not the person on Target; presentation attack; found among the stored faces.
    score : float or None
        Source against Target, 0..100; None if they were not compared.
    duplicates : tuple of Match
        Stored faces of the same person, best first.
    is_attack : bool or None
        None if liveness was not checked.
    attack_score : float or None
        0..100, higher means more likely an attack.
    registered : bool or None
        None if registration was not attempted; False if the group already held the user.
    face_id : str
        Id of the new record; "" if there is none.
    age : int or None
        In years; None if it was not requested or cannot be estimated.
    gender : {"M", "F"} or None
        None in the same cases as `age`.
    quality : mapping of str to float, or None
        As in `FaceCompareResult`.
    transaction_id : str
        32 hexadecimal digits.
    """

    passed: bool
    sub_code: SubCode
    score: float | None
    duplicates: tuple[Match, ...]
    is_attack: bool | None
    attack_score: float | None
    registered: bool | None
    face_id: str
    age: int | None
    gender: Literal["M", "F"] | None
    quality: Mapping[str, float] | None
    transaction_id: str

    def to_response(self) -> dict[str, Any]:
        """Return the members of the response body, without values that were not computed."""
        result: dict[str, Any] = {
            "FacePassed": "Y" if self.passed else "N",
            "SubCode": self.sub_code,
            "TransactionId": self.transaction_id,
        }
        if self.score is not None:
            result["FaceComparisonScore"] = str(self.score)
        if self.duplicates:
            result["DuplicateFace"] = _duplicates(self.duplicates)
        if self.is_attack is not None:
            result["FaceAttack"] = "Y" if self.is_attack else "N"
            result["FaceAttackScore"] = str(self.attack_score)
        if self.registered is not None:
            result["FaceRegistrationResult"] = 1 if self.registered else 0
        if self.face_id:
            result["FaceRegistrationId"] = self.face_id
        if self.age is not None:
            result["FaceAge"] = str(self.age)
        if self.gender is not None:
            result["FaceGender"] = self.gender
        if self.quality is not None:
            result["ExtFaceInfo"] = dict(self.quality)
        return {"Result": result}


def _duplicates(matches: tuple[Match, ...]) -> str:
    return json.dumps(
        [
            {
                "faceGroupCode": match.group,
                "faceId": match.face_id,
                "merchantUserId": match.user_id,
            }
            for match in matches
        ],
        ensure_ascii=False,
    )


def run(context: Context, params: Mapping[str, object]) -> DuplicationCheckResult:
    """Check a face against another picture, against stored faces, or both."""
    values = read(DUPLICATION_CHECK, params)
    searches, registers = _check(context, values)
    source, *rest = context.faces(values, PHOTO)
    target = rest[0] if rest else None
    engine, config = context.engine, context.config

    liveness = _liveness(context, source) if values["Liveness"] == "1" else None
    compared = None
    if target is not None:
        compared = engine.compare(source, target, threshold=config.threshold)
    sub_code = PASSED
    if liveness is not None and liveness.is_attack:
        sub_code = ATTACK
    elif compared is not None and not compared.passed:
        sub_code = NOT_THE_SAME
    # Measure before taking the lock, so that other requests do not wait, and before storing the
    # face, because measuring may fail.
    if registers and sub_code == PASSED:
        engine.quality(source)  # cached on the sample
    attributes = None
    if values["FaceAttributeCheck"] == "Y" and engine.pack.attributes is not None:
        attributes = engine.attributes(source)
    quality = None
    if values["FaceQualityCheck"] == "Y":
        quality = quality_scores(engine, source, target)
    record: FaceRecord | None = None
    with context.registering if registers else nullcontext():
        matches = _search(context, values, source, searches)
        if matches and sub_code == PASSED:
            sub_code = FOUND
        attempted = registers and sub_code == PASSED
        if attempted:
            record = _register(context, values, source)
    return DuplicationCheckResult(
        passed=sub_code == PASSED,
        sub_code=sub_code,
        score=None if compared is None else compared.score,
        duplicates=matches,
        is_attack=None if liveness is None else liveness.is_attack,
        attack_score=None if liveness is None else liveness.attack_score,
        registered=record is not None if attempted else None,
        face_id="" if record is None else record.face_id,
        age=None if attributes is None else round(attributes.age),
        gender=None if attributes is None else attributes.gender,
        quality=quality,
        transaction_id=new_transaction_id(),
    )


def _check(context: Context, values: Values) -> tuple[list[str], bool]:
    """Check what the table cannot express; return the groups to search, and whether to register."""
    codes: list[str] = []
    if values["FaceGroupCodes"]:
        codes = list(values.lists["FaceGroupCodes"])
        if not 1 <= len(codes) <= _MOST_GROUPS:
            raise OperationError(
                INVALID_PARAMETER,
                f"FaceGroupCodes has {len(codes)} codes, must have 1 to {_MOST_GROUPS}.",
            )
        for code in codes:
            context.check_group(code)
    registers = values["AutoRegistration"] == "0"
    if registers:
        context.check_group(values["FaceRegisterGroupCode"])
        context.check_user_id(values["MerchantUserId"])
    if values["Liveness"] == "1" and not context.engine.pack.runs_liveness:
        # Do not answer "no attack": liveness was not checked.
        message = f"the pack {context.engine.pack.name} has no liveness model that runs"
        _log.error("Liveness=1 cannot be answered: %s", message)
        raise OperationError(INTERNAL_ERROR, f"Liveness=1 cannot be answered: {message}.")
    return codes, registers


def _liveness(context: Context, source: FaceSample) -> Liveness:
    try:
        return context.engine.liveness(source, threshold=context.config.liveness_threshold)
    except (FaceTooSmall, FaceTurned) as error:
        raise OperationError(UNQUALIFIED_PHOTO, f"Source: {error.message}.") from error


def _search(
    context: Context, values: Values, source: FaceSample, groups: list[str]
) -> tuple[Match, ...]:
    """Return the stored faces of the same person, best first."""
    if not groups:
        return ()
    config, limit = context.config, int(values["ReturnFaces"])
    least = context.engine.threshold if config.threshold is None else config.threshold
    try:
        found = context.gallery.search(source, groups, limit, far=config.search_far)
    except InvalidParameter as error:
        # The table has no score rare enough for this many faces.  Do not answer "no match".
        message = f"The groups cannot be searched: {error.message}."
        raise OperationError(INTERNAL_ERROR, message) from error
    return tuple(match for match in found if match.score >= least)


def _register(context: Context, values: Values, source: FaceSample) -> FaceRecord | None:
    """Store the face; return None if the user is in the group and must not be replaced."""
    replaces = values["UpdateFaceIfUserExists"] == "Y"
    try:
        return context.gallery.add(
            values["FaceRegisterGroupCode"],
            source,
            values["MerchantUserId"],
            origin="AUTO",
            on_existing="replace" if replaces else "refuse",
        )
    except UserExists:
        return None
