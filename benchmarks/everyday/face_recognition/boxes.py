import sys
from pathlib import Path

import face_recognition as fr
from PIL import Image, ImageDraw

known, photo = sys.argv[1:3]
names = {
    path.stem: fr.face_encodings(fr.load_image_file(path))[0] for path in Path(known).glob("*.jpg")
}
pixels = fr.load_image_file(photo)
picture = Image.fromarray(pixels)
draw = ImageDraw.Draw(picture)
boxes = fr.face_locations(pixels)
for (top, right, bottom, left), face in zip(boxes, fr.face_encodings(pixels, boxes), strict=True):
    distances = fr.face_distance(list(names.values()), face)
    best = distances.argmin()
    draw.rectangle((left, top, right, bottom), outline="lime")
    draw.text((left, bottom), list(names)[best] if distances[best] <= 0.6 else "unknown")
picture.save("named.png")
