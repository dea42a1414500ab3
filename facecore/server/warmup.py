"""Everything that takes its time at the first request, before the first request."""

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


def prepare(gallery: Gallery) -> None:
    """Compact a gallery that is mostly removed faces, and build its index.

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
