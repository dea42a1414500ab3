import sys

import face_recognition as fr

first, second = (fr.face_encodings(fr.load_image_file(path))[0] for path in sys.argv[1:3])
print(fr.compare_faces([first], second)[0])
