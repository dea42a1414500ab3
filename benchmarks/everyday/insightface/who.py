import sys
from pathlib import Path

import cv2
import numpy as np
from insightface.app import FaceAnalysis

app = FaceAnalysis()
app.prepare(ctx_id=-1)
photo, known = sys.argv[1:3]
paths = sorted(Path(known).glob("*.jpg"))
vectors = np.stack([app.get(cv2.imread(str(path)))[0].normed_embedding for path in paths])
for face in app.get(cv2.imread(photo)):
    similarities = vectors @ face.normed_embedding
    best = similarities.argmax()
    print(face.bbox, paths[best].stem if similarities[best] > 0.4 else "unknown")
