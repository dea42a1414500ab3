import sys
from pathlib import Path

import cv2
from uniface import FaceAnalyzer
from uniface.stores import FAISS

app = FaceAnalyzer()
known, photo = sys.argv[1:3]
store = FAISS(db_path="people")
for path in sorted(Path(known).glob("*.jpg")):
    store.add(app.analyze(cv2.imread(str(path)))[0].embedding, {"name": path.stem})
store.save()
store.load()
found, similarity = store.search(app.analyze(cv2.imread(photo))[0].embedding)
print(found["name"] if found else "unknown", similarity)
