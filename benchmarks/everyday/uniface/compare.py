import sys

import cv2
from uniface import FaceAnalyzer

app = FaceAnalyzer()
first, second = (
    max(app.analyze(cv2.imread(path)), key=lambda f: f.bbox[2] - f.bbox[0]).embedding
    for path in sys.argv[1:3]
)
print(first @ second > 0.4)
