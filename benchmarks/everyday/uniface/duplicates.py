import sys
from pathlib import Path

import cv2
import numpy as np
from uniface import FaceAnalyzer

app = FaceAnalyzer()
faces = [
    (path, face.embedding)
    for path in sorted(Path(sys.argv[1]).rglob("*.jpg"))
    for face in app.analyze(cv2.imread(str(path)))
]
vectors = np.stack([vector for _, vector in faces])
for i, j in np.argwhere(np.triu(vectors @ vectors.T > 0.4, 1)):
    if faces[i][0] != faces[j][0]:
        print(faces[i][0], faces[j][0])
