facecore group create known --gallery people.gallery
facecore group import PEOPLE --group known --gallery people.gallery
facecore search B.jpg --group known --gallery people.gallery
