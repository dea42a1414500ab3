"""Warm up the models and the gallery before the first request."""

from __future__ import annotations

import base64
import logging
import tempfile

from facecore import demo, images
from facecore.engine import FaceEngine
from facecore.errors import GalleryLocked, GalleryNotWritable
from facecore.gallery.gallery import Gallery
from facecore.gallery.milvus.client import is_milvus
from facecore.operations.config import ServiceConfig
from facecore.operations.service import FaceService

__all__ = ["prepare", "warm"]

logger = logging.getLogger("facecore.server")


def warm(engine: FaceEngine) -> None:
    """Run every model and a search once, so that clients do not wait for compilation.

    The vendor's clients time out after 10 seconds.  The search uses a temporary gallery, not the
    caller's.

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
        # One request uses search, comparison, liveness, quality and attributes.
        service.call(
            "FaceDuplicationCheckIntl",
            {
                "ProductCode": "FACE_IDU_MIN",
                "MerchantBizId": "warm",
                "MerchantUserId": "warm",
                "VerifyModel": "2",
                "FaceGroupCodes": "warm",
                "Liveness": "1" if engine.pack.runs_liveness else "0",
                "FaceQualityCheck": "Y",
                "FaceAttributeCheck": "Y",
                "SourceFacePicture": text,
                "TargetFacePicture": text,
            },
        )


def prepare(gallery: Gallery) -> None:
    """Compact a gallery that has more removed faces than faces, and build its index.

    Raises
    ------
    GalleryCorrupt
    """
    # Milvus compacts by itself, and its `stats` takes minutes.
    if not is_milvus(gallery.address):
        stats = gallery.stats()
        if stats.removed > stats.faces:
            try:
                gallery.compact()
            except (GalleryLocked, GalleryNotWritable) as error:
                logger.warning("the gallery was not compacted: %s", error)
    gallery.warmup()
