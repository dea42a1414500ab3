facecore who PHOTO.jpg KNOWN --draw named.png
