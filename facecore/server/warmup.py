"""Everything that takes its time at the first request, before the first request."""

from __future__ import annotations

import base64
import tempfile

from facecore import demo, images
from facecore.engine import FaceEngine
from facecore.gallery.gallery import Gallery
from facecore.operations.config import ServiceConfig
from facecore.operations.service import FaceService

__all__ = ["warm"]


def warm(engine: FaceEngine) -> None:
    """Run every model once, and a search, so that clients do not wait for a compiler.

    The vendor's clients give up after 10 seconds.  What is warmed is the process, on a gallery
    that is thrown away; the caller's own is not touched.

    Parameters
    ----------
    engine : FaceEngine
    """
    import cv2

    engine.warmup()
    astronaut = images.load(demo.read("astronaut"))
    portrait = cv2.resize(astronaut[:, 48:432], (480, 640))
    _, encoded = cv2.imencode(".jpg", portrait)
    picture = encoded.tobytes()
    text = base64.b64encode(picture).decode("ascii")
    with (
        tempfile.TemporaryDirectory(prefix="facecore-warm-") as folder,
        Gallery(folder, engine) as gallery,
    ):
        gallery.create_group("warm")
        service = FaceService(engine, gallery, ServiceConfig())
        service.call(
            "AddFaceRecord",
            {"ProductCode": "FACE_ENROLL", "FaceGroupCode": "warm", "FacePictureFile": picture},
        )
        # All that one request can ask for: search, comparison, liveness, quality, attributes.
        service.call(
            "FaceDuplicationCheckIntl",
            {
                "ProductCode": "FACE_IDU_MIN",
                "MerchantBizId": "warm",
                "MerchantUserId": "warm",
                "VerifyModel": "2",
                "FaceGroupCodes": "warm",
                "Liveness": "0" if engine.pack.liveness is None else "1",
                "FaceQualityCheck": "Y",
                "FaceAttributeCheck": "Y",
                "SourceFacePicture": text,
                "TargetFacePicture": text,
            },
        )
