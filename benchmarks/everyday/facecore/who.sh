facecore who PHOTO.jpg KNOWN
