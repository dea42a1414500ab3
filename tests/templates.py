"""Helpers for galleries of templates, for tests that need no pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facecore.errors import InvalidParameter
from facecore.face.detection import Face
from facecore.face.quality import Quality
from facecore.matching.calibration import Calibration
from facecore.models.packs import load_pack

DIMENSION = load_pack("compact").pack.embedder.output.dimension


class TemplateSample(np.ndarray[Any, Any]):
    """A template in place of a detected face."""

    face = Face(np.zeros(4, np.float32), np.zeros((5, 2), np.float32), 1.0)
    others: tuple[Face, ...] = ()


class TemplateEngine:
    """The methods of an engine that a gallery needs; an image is its own template."""

    def __init__(self, pack: str | Path = "compact") -> None:
        self.pack = load_pack(pack).pack
        self.contract_id = self.pack.contract_id
        self.calibration = Calibration.from_spec(self.pack.embedder.calibration, self.contract_id)
        self.threshold = self.calibration.threshold()

    def calibration_for(self, id_portrait: bool = False) -> Calibration:
        return self.calibration

    def embed(self, image: Any, *, face: str = "largest") -> NDArray[np.float32]:
        shape = (self.pack.embedder.output.dimension,)
        if not isinstance(image, np.ndarray) or image.shape != shape:
            raise InvalidParameter(f"{image!r:.40} is no template")
        return image.view(np.ndarray)

    def sample(self, image: Any, *, face: str = "largest") -> Any:
        return self.embed(image).view(TemplateSample)

    def samples(self, image: Any) -> Any:
        return [self.sample(row) for row in np.atleast_2d(image)]

    def quality(self, image: Any) -> Quality:
        return Quality(100.0, "HIGH", {}, {})

    def embed_many(
        self,
        images: Iterable[Any],
        batch_size: int = 32,
        progress: bool = False,
        *,
        face: str = "largest",
        if_many: str = "largest",
    ) -> Iterator[Any]:
        for image in images:
            try:
                yield self.embed(image)
            except InvalidParameter as error:
                yield error


def unit(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """Normalise vectors to length 1."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / norms, np.float32)


def template(token: str) -> NDArray[np.float32]:
    """Return the template of a name: always the same, and different from all others."""
    seed = int.from_bytes(hashlib.sha256(token.encode()).digest()[:8], "little")
    return unit(np.random.default_rng(seed).standard_normal(DIMENSION))


def clusters(count: int, people: int, seed: int = 0) -> NDArray[np.float32]:
    """Return unit vectors around `people` centres; row i belongs to person i % `people`."""
    rng = np.random.default_rng(seed)
    centres = unit(rng.standard_normal((people, DIMENSION), dtype=np.float32))
    noise = 0.06 * rng.standard_normal((count, DIMENSION), dtype=np.float32)
    return unit(centres[np.arange(count) % people] + noise)
