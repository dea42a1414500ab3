"""Operations on many pictures: name faces, find duplicates, cluster a folder, embed in bulk."""

from facecore.collections.clusters import Clusters, Doubt, Person, cluster
from facecore.collections.duplicates import folder_duplicates
from facecore.collections.embedding import Embedded, embed_pictures
from facecore.collections.faces import (
    FoundFace,
    PictureFaces,
    Unreadable,
    read_faces,
    read_folder,
)
from facecore.collections.vector_cache import VectorCache
from facecore.collections.who import KnownFaces, NamedFace, Who, known_people, read_known, who

__all__ = [
    "Clusters",
    "Doubt",
    "Embedded",
    "FoundFace",
    "KnownFaces",
    "NamedFace",
    "Person",
    "PictureFaces",
    "Unreadable",
    "VectorCache",
    "Who",
    "cluster",
    "embed_pictures",
    "folder_duplicates",
    "known_people",
    "read_faces",
    "read_folder",
    "read_known",
    "who",
]
