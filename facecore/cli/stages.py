"""What the stages of one comparison take, by the engine's public methods alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from facecore.face.alignment import align
from facecore.face.sample import FaceSample

if TYPE_CHECKING:
    from facecore import FaceEngine
    from facecore.images import ImageInput

__all__ = ["STAGES", "runs", "shares"]

STAGES = ("load", "detect", "align", "embed", "compare")


def runs(engine: FaceEngine, a: ImageInput, b: ImageInput) -> dict[str, Callable[[int], object]]:
    """What has to be timed for `shares`, all for both images."""
    known = [engine.sample(image) for image in (a, b)]
    engine.compare(*known)  # they have vectors from now on

    def detect(turn: int) -> None:
        for sample in known:
            engine.largest_face(sample.pixels)

    def crop(turn: int) -> None:
        for sample in known:
            align(sample.pixels, sample.face.landmarks)

    def sample(turn: int) -> None:
        for image in (a, b):
            engine.sample(image)

    def embed(turn: int) -> None:
        first, second = (FaceSample(s.pixels, s.face, s.crop) for s in known)
        engine.compare(first, second)

    return {
        "whole": lambda turn: engine.compare(a, b),
        "sample": sample,
        "detect": detect,
        "align": crop,
        "embed": embed,
        "compare": lambda turn: engine.compare(*known),
    }


def shares(medians: Mapping[str, float]) -> dict[str, float]:
    """Seconds of each of `STAGES`, one after the other, for both images.

    What cannot be asked for alone is a difference: loading is what finding the face in the file
    takes longer than finding it in its pixels, embedding what a comparison takes longer whose
    vectors are not known yet.
    """
    load = medians["sample"] - medians["detect"] - medians["align"]
    embed = medians["embed"] - medians["compare"]
    named = (load, medians["detect"], medians["align"], embed, medians["compare"])
    return {stage: max(0.0, value) for stage, value in zip(STAGES, named, strict=True)}
