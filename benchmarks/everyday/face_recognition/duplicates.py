import sys
from itertools import combinations
from pathlib import Path

import face_recognition as fr

faces = [
    (path, face)
    for path in sorted(Path(sys.argv[1]).rglob("*.jpg"))
    for face in fr.face_encodings(fr.load_image_file(path))
]
for (a, first), (b, second) in combinations(faces, 2):
    if a != b and fr.compare_faces([first], second)[0]:
        print(a, b)
