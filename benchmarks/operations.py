"""Overhead of a documented operation over `engine.compare` of the same bytes.

python -m benchmarks operations [PICTURE PICTURE]

The two take turns, so that other load affects both alike; all figures are medians.
"""

from __future__ import annotations

import argparse
import base64
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from facecore import FaceEngine, Gallery
from facecore.operations import FaceService

ROUNDS = 200


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "pictures", type=Path, nargs="*", help="two; default: scikit-image's astronaut"
    )
    args = parser.parse_args()
    files = [path.read_bytes() for path in args.pictures] or _pictures()
    a, b = files
    texts = [base64.b64encode(data).decode("ascii") for data in files]
    engine = FaceEngine(threads=1)
    with tempfile.TemporaryDirectory() as folder, Gallery(folder, engine) as gallery:
        service = FaceService(engine, gallery)
        request = {
            "MerchantBizId": "benchmark",
            "SourceFacePicture": texts[0],
            "TargetFacePicture": texts[1],
        }
        runs: dict[str, Callable[[], object]] = {
            "engine.compare": lambda: engine.compare(a, b),
            "service.call": lambda: service.call("FaceCompare", request),
            "engine.compare again": lambda: engine.compare(a, b),
        }
        answer = service.call("FaceCompare", request)
        if answer.status != 200:
            raise SystemExit(f"the pictures are refused: {answer.body}")
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
        for _ in range(ROUNDS):
            for name, run in runs.items():
                wall, cpu = time.perf_counter(), time.process_time()
                run()
                times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    medians = {name: np.median(values[10:], axis=0) for name, values in times.items()}
    base = medians["engine.compare"]
    print(f"{len(a):,} and {len(b):,} bytes, {ROUNDS} rounds, one thread; wall clock and processor")
    for name, median in medians.items():
        wall, cpu = median * 1e3
        more = median / base - 1
        print(f"{name:22} {wall:7.2f} ms {more[0]:+6.1%}   {cpu:7.2f} ms {more[1]:+6.1%}")


def _pictures() -> list[bytes]:
    """Return two 960x720 JPEG files of one face, from scikit-image's sample picture."""
    from skimage import data

    face = np.ascontiguousarray(data.astronaut()[:320, 100:340, ::-1])
    large = cv2.resize(face, (720, 960), interpolation=cv2.INTER_CUBIC)
    quality = (cv2.IMWRITE_JPEG_QUALITY, 90)
    return [
        cv2.imencode(".jpg", picture, quality)[1].tobytes() for picture in (large, large[:, ::-1])
    ]


if __name__ == "__main__":
    main()
