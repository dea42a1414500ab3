import pickle
import sys
from pathlib import Path

import face_recognition as fr

known, photo = sys.argv[1:3]
names = {
    path.stem: fr.face_encodings(fr.load_image_file(path))[0] for path in Path(known).glob("*.jpg")
}
Path("people.pickle").write_bytes(pickle.dumps(names))
names = pickle.loads(Path("people.pickle").read_bytes())
face = fr.face_encodings(fr.load_image_file(photo))[0]
distances = fr.face_distance(list(names.values()), face)
best = distances.argmin()
print(list(names)[best] if distances[best] <= 0.6 else "unknown", distances[best])
