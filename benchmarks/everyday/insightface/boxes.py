import sys
from pathlib import Path

import cv2
import numpy as np
from insightface.app import FaceAnalysis

app = FaceAnalysis()
app.prepare(ctx_id=-1)
known, photo = sys.argv[1:3]
paths = sorted(Path(known).glob("*.jpg"))
vectors = np.stack([app.get(cv2.imread(str(path)))[0].normed_embedding for path in paths])
picture = cv2.imread(photo)
for face in app.get(picture):
    similarities = vectors @ face.normed_embedding
    best = similarities.argmax()
    name = paths[best].stem if similarities[best] > 0.4 else "unknown"
    x1, y1, x2, y2 = face.bbox.astype(int)
    cv2.rectangle(picture, (x1, y1), (x2, y2), (0, 255, 0), 2)
    cv2.putText(picture, name, (x1, y1 - 4), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (0, 255, 0))
cv2.imwrite("named.png", picture)
