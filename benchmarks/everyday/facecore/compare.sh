facecore compare A.jpg B.jpg
