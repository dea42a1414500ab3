import sys

import cv2
from insightface.app import FaceAnalysis

app = FaceAnalysis()
app.prepare(ctx_id=-1)
first, second = (
    max(app.get(cv2.imread(path)), key=lambda f: f.bbox[2] - f.bbox[0]).normed_embedding
    for path in sys.argv[1:3]
)
print(first @ second > 0.4)
