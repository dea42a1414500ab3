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
np.savez("people.npz", names=[path.stem for path in paths], vectors=vectors)
people = np.load("people.npz")
similarities = people["vectors"] @ app.get(cv2.imread(photo))[0].normed_embedding
best = similarities.argmax()
print(people["names"][best] if similarities[best] > 0.4 else "unknown", similarities[best])
