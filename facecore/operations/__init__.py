"""The documented operations, with their results, codes and settings."""

from facecore.operations.add_face_record import AddFaceRecordResult
from facecore.operations.codes import CODES, DOCUMENTED, Code, OperationError
from facecore.operations.compare_faces import CompareFacesResult
from facecore.operations.config import ServiceConfig
from facecore.operations.cross_compare import CrossCompareResult
from facecore.operations.duplication_check import DuplicationCheckResult
from facecore.operations.face_compare import FaceCompareResult
from facecore.operations.service import FaceService, Response

__all__ = [
    "CODES",
    "DOCUMENTED",
    "AddFaceRecordResult",
    "Code",
    "CompareFacesResult",
    "CrossCompareResult",
    "DuplicationCheckResult",
    "FaceCompareResult",
    "FaceService",
    "OperationError",
    "Response",
    "ServiceConfig",
]
