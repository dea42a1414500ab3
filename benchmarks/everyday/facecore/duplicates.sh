facecore duplicates FOLDER
