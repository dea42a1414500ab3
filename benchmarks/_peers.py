"""Peers that compare two files: scripts on OpenCV and ONNX Runtime, and `face_recognition`."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime as ort

from facecore.face.alignment import TEMPLATE
from facecore.models.packs import Pack

Array = np.ndarray[Any, Any]


class Script:
    """A plain script on the pack's two models, with ONNX Runtime's default settings.

    The detector sees the picture at `SIDE` pixels, as in facecore.
    """

    SIDE = 320

    def __init__(self, pack: Pack) -> None:
        self.pack, self.strides = pack, pack.detector.output.strides
        cpu = ["CPUExecutionProvider"]
        self.embedder = ort.InferenceSession(pack.folder / pack.embedder.file, providers=cpu)
        self.open_detector(pack.folder / pack.detector.file)

    def open_detector(self, file: Path) -> None:
        self.detector = ort.InferenceSession(file, providers=["CPUExecutionProvider"])

    def compare(self, a: Path, b: Path) -> float:
        return float(self.embed(a) @ self.embed(b))

    def embed(self, path: Path) -> Array:
        image = cv2.imread(str(path))
        assert image is not None
        scale = self.SIDE / max(image.shape[:2])
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        landmarks = self.landmarks(small) / scale
        matrix, _ = cv2.estimateAffinePartial2D(landmarks, TEMPLATE, method=cv2.LMEDS)
        crop = cv2.warpAffine(image, matrix, (112, 112))
        spec = self.pack.embedder.input
        blob = cv2.dnn.blobFromImage(crop, mean=spec.mean, swapRB=spec.channels == "RGB")
        blob /= np.array(spec.std, np.float32)[:, None, None]
        vector = self.embedder.run(None, {spec.name: blob})[0][0]
        return np.asarray(vector / np.linalg.norm(vector))

    def landmarks(self, small: Array) -> Array:
        """Landmarks (5, 2) of the most confident face, decoded from YuNet's heads with NumPy."""
        height, width = (-(-side // 32) * 32 for side in small.shape[:2])
        bottom, right = height - small.shape[0], width - small.shape[1]
        padded = cv2.copyMakeBorder(small, 0, bottom, 0, right, cv2.BORDER_CONSTANT)
        feed = {self.pack.detector.input.name: cv2.dnn.blobFromImage(padded)}
        outputs = self.detector.run(list(self.pack.detector.output.names), feed)
        best, found = -1.0, np.empty((5, 2))
        for i, stride in enumerate(self.strides):
            cls, obj, _, points = (outputs[i + k * len(self.strides)][0] for k in range(4))
            scores = cls[:, 0] * obj[:, 0]
            top = int(scores.argmax())
            if scores[top] > best:
                best = float(scores[top])
                cell = np.array([top % (width // stride), top // (width // stride)])
                found = (points[top].reshape(5, 2) + cell) * stride
        return found


class FaceDetectorYN(Script):
    """The same script with OpenCV's FaceDetectorYN, on the pack's detector or another."""

    def __init__(self, pack: Pack, detector: Path | None = None) -> None:
        self.other = detector
        super().__init__(pack)

    def open_detector(self, file: Path) -> None:
        # Silence the warning that OpenCV's new graph engine supports one target only.
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
        threshold = self.pack.detector.threshold
        self.opencv = cv2.FaceDetectorYN.create(str(self.other or file), "", (320, 320), threshold)
        self.size = (320, 320)

    def landmarks(self, small: Array) -> Array:
        size = (small.shape[1], small.shape[0])
        if size != self.size:
            self.opencv.setInputSize(size)
            self.size = size
        _, faces = self.opencv.detect(small)
        row = max(faces, key=lambda face: face[2] * face[3])
        return np.asarray(row[4:14]).reshape(5, 2)


class FaceRecognition:
    """`face_recognition` (dlib) in another interpreter, controlled over standard streams."""

    PROGRAM = """
import sys, warnings
warnings.simplefilter("ignore")
from importlib.metadata import version
import face_recognition as fr
def vector(path):
    return fr.face_encodings(fr.load_image_file(path))[0]
print(version("face_recognition"), version("dlib-bin"), flush=True)
for line in sys.stdin:
    a, b = line.rstrip("\\n").split("\\t")
    print(fr.face_distance([vector(a)], vector(b))[0], flush=True)
"""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.version = "face_recognition {}, dlib-bin {}".format(*self._answer().split())

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("the interpreter of --face-recognition cannot do it; see above")
        return line

    def compare(self, a: Path, b: Path) -> float:
        """Return the distance; below 0.6 means the same person."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{a}\t{b}\n")
        self._process.stdin.flush()
        return float(self._answer())


@contextmanager
def face_recognition(python: Path) -> Iterator[FaceRecognition]:
    """Start the peer and wait until its imports are done."""
    with subprocess.Popen(
        [python, "-E", "-c", FaceRecognition.PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield FaceRecognition(process)
        finally:
            process.kill()
