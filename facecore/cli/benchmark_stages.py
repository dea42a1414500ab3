"""The stages of one comparison, through the engine's public methods only."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from facecore.face.alignment import TEMPLATE, align, estimate
from facecore.face.sample import FaceSample

if TYPE_CHECKING:
    from facecore import FaceEngine
    from facecore.images import ImageInput
    from facecore.images.picture import Picture

__all__ = ["STAGES", "runs"]

STAGES = ("load", "detect", "align", "embed", "compare")


def runs(engine: FaceEngine, a: ImageInput, b: ImageInput) -> dict[str, Callable[[int], object]]:
    """Return the runs to time: each stage for both images in sequence, and the whole comparison.

    The whole takes less time than the sum of its stages if both images are processed in parallel.
    """
    known = [engine.sample(image) for image in (a, b)]
    engine.compare(*known)  # caches their vectors
    # The crop may need a finer picture than detection.
    scales = [estimate(sample.face.landmarks, TEMPLATE).scale for sample in known]

    def opened() -> list[Picture]:
        pictures = [engine.open(image) for image in (a, b)]
        for picture, scale in zip(pictures, scales, strict=True):
            picture.reduced(scale)
        return pictures

    pictures = opened()

    def detect(turn: int) -> None:
        for picture in pictures:
            engine.largest_face(picture)

    def crop(turn: int) -> None:
        for picture, sample in zip(pictures, known, strict=True):
            align(picture, sample.face.landmarks)

    def embed(turn: int) -> None:
        for sample in known:
            engine.embed(FaceSample(sample.picture, sample.face, sample.crop))

    return {
        "load": lambda turn: opened(),
        "detect": detect,
        "align": crop,
        "embed": embed,
        "compare": lambda turn: engine.compare(*known),
        "whole": lambda turn: engine.compare(a, b),
    }
