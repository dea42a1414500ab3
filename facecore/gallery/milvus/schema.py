"""Schema of a gallery's two Milvus collections, and conversion of rows."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facecore.errors import ContractMismatch, InvalidParameter
from facecore.gallery.milvus.client import MilvusClient
from facecore.gallery.records import (
    Contract,
    FaceRecord,
    Group,
    NewFace,
    from_microseconds,
    to_microseconds,
)

__all__ = [
    "FACES",
    "FACE_FIELDS",
    "GROUPS",
    "GROUP_FIELDS",
    "check_contract",
    "create",
    "face_of",
    "group_of",
    "group_row",
    "key",
    "row_of",
]

GROUPS, FACES = "facecore_groups", "facecore_faces"
GROUP_FIELDS = ["id", "name", "title", "description", "created", "deleted"]
FACE_FIELDS = ["id", "face_id", "group_id", "user_id", "origin", "quality", "created"]
_PROPERTY, _VERSION = "facecore", 1
_HNSW = {"M": 16, "efConstruction": 200}


def create(server: MilvusClient, collection: str, contract: Contract, index: str) -> None:
    """Create one of the collections; `index` is a Milvus index type."""
    types, client = server.milvus.DataType, server.milvus.MilvusClient
    schema = client.create_schema(auto_id=collection == FACES)
    schema.add_field("id", types.INT64, is_primary=True)
    schema.add_field("created", types.INT64)  # microseconds since 1970, UTC
    # Milvus limits bytes; a character has up to four.
    if collection == FACES:
        texts = {"face_id": 32, "user_id": 1024, "user_key": 64, "origin": 8}
        schema.add_field("group_id", types.INT64, is_partition_key=True)
        schema.add_field("quality", types.DOUBLE, nullable=True)
        schema.add_field("vector", types.FLOAT_VECTOR, dim=contract.dimension)
    else:
        texts = {"name": 256, "name_key": 64, "title": 16_384, "description": 16_384}
        schema.add_field("deleted", types.BOOL)
        schema.add_field("vector", types.FLOAT_VECTOR, dim=2)  # Milvus requires a vector field
        index = "FLAT"
    for field, length in texts.items():
        schema.add_field(field, types.VARCHAR, max_length=length)
    indexes = client.prepare_index_params()
    params = _HNSW if index == "HNSW" else {}
    indexes.add_index("vector", index_type=index, metric_type="IP", params=params)
    if collection == FACES:  # for lookups of faces and users
        for field in ("face_id", "user_key"):
            indexes.add_index(field, index_type="INVERTED")
    own = {"contract": contract.id, "pack": contract.pack, "version": _VERSION}
    server.call(
        "create_collection",
        collection,
        schema=schema,
        consistency_level="Strong",
        properties={_PROPERTY: json.dumps(own)},
    )
    # The collection is empty; waiting for its index would cost half a second in pymilvus.
    server.call("create_index", collection, indexes, sync=False)


def check_contract(server: MilvusClient, collection: str, contract: Contract) -> None:
    """Check that a collection was created with the engine's contract.

    Raises
    ------
    ContractMismatch
        The collection has another contract.
    InvalidParameter
        The collection is not facecore's, or a newer facecore made it.
    """
    properties = server.call("describe_collection", collection).get("properties", {})
    try:
        own = json.loads(properties[_PROPERTY])
        found, pack, version = own["contract"], own["pack"], own["version"]
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidParameter(
            f"{server.name}: the collection {collection} is not facecore's", "use another database"
        ) from error
    if version != _VERSION:
        raise InvalidParameter(
            f"{server.name} has version {version} of the schema, this facecore knows {_VERSION}",
            "update facecore: pip install --upgrade facecore",
        )
    if found != contract.id:
        raise ContractMismatch(
            f"{server.name} holds templates of the pack {pack} (contract {found}), "
            f"not of {contract.pack} (contract {contract.id})"
        )


def key(text: str) -> str:
    """Hash a name or user id to its lookup key: hexadecimal digits, which need no escaping."""
    return hashlib.sha256(text.encode()).hexdigest()


def row_of(group: int, face: NewFace, vector: NDArray[np.float32]) -> dict[str, Any]:
    """Convert a face to a stored row."""
    return {
        "face_id": face.face_id,
        "group_id": group,
        "user_id": face.user_id,
        "user_key": key(face.user_id),
        "origin": face.origin,
        "quality": face.quality,
        "created": to_microseconds(face.created),
        "vector": vector,
    }


def face_of(row: dict[str, Any], group: str) -> FaceRecord:
    """Convert a stored row to a FaceRecord."""
    return FaceRecord(
        row["id"],
        row["face_id"],
        row["user_id"],
        group,
        row["quality"],
        row["origin"],
        from_microseconds(row["created"]),
    )


def group_row(number: int, name: str, title: str, description: str, created: int) -> dict[str, Any]:
    """Convert a group to a stored row."""
    return {
        "id": number,
        "name": name,
        "name_key": key(name),
        "title": title,
        "description": description,
        "created": created,
        "deleted": False,
        "vector": [1.0, 0.0],
    }


def group_of(row: dict[str, Any], size: int) -> Group:
    """Convert a stored row to a Group."""
    title, description = row["title"], row["description"]
    created = from_microseconds(row["created"])
    return Group(row["id"], row["name"], title, description, created, size)
