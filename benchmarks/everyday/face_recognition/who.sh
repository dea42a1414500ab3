face_recognition KNOWN PHOTO.jpg
