import sys
from pathlib import Path

import cv2
import numpy as np
from uniface import FaceAnalyzer

app = FaceAnalyzer()
photo, known = sys.argv[1:3]
paths = sorted(Path(known).glob("*.jpg"))
vectors = np.stack([app.analyze(cv2.imread(str(path)))[0].embedding for path in paths])
for face in app.analyze(cv2.imread(photo)):
    similarities = vectors @ face.embedding
    best = similarities.argmax()
    print(face.bbox, paths[best].stem if similarities[best] > 0.4 else "unknown")
