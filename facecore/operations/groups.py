"""The operations on face groups and on the records in them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from facecore.errors import GroupNotFound, InvalidParameter, RecordNotFound
from facecore.gallery.records import FaceRecord, Group, check_face_id, check_user_id
from facecore.operations.context import Context, refusing
from facecore.operations.parameters import Values, read
from facecore.operations.tables import (
    CREATE_FACE_GROUP,
    DELETE_FACE_GROUP,
    DELETE_FACE_RECORD,
    DELETE_FACE_RECORD_V2,
    MODIFY_FACE_GROUP,
    QUERY_FACE_GROUP,
    QUERY_FACE_RECORD,
)

__all__ = [
    "GroupsResult",
    "create_group",
    "delete_group",
    "delete_record",
    "delete_record_v2",
    "modify_group",
    "query_groups",
    "query_records",
]


@dataclass(frozen=True, slots=True)
class GroupsResult:
    """Answer of an operation on groups.

    Attributes
    ----------
    members : dict
        Members of the response body.
    """

    members: dict[str, Any] = field(default_factory=dict)

    def to_response(self) -> dict[str, Any]:
        """Return the members of the response body."""
        return self.members


def create_group(context: Context, params: Mapping[str, object]) -> GroupsResult:
    """CreateFaceGroup (the vendor has no such operation): create a group; ``Data`` is its Id."""
    values = read(CREATE_FACE_GROUP, params)
    context.check_access(values["GroupCode"])
    with refusing():
        group = context.gallery.create_group(
            values["GroupCode"], title=values["Name"], description=values["Description"]
        )
    return GroupsResult({"Data": group.id})


def query_groups(context: Context, params: Mapping[str, object]) -> GroupsResult:
    """QueryFaceGroup: list one page of the groups, by Id."""
    values = read(QUERY_FACE_GROUP, params)
    with refusing():
        groups = context.gallery.groups(title=values["Name"] or None)
    code = values["GroupCode"]
    groups = [group for group in groups if code in ("", group.name) and context.may_use(group.name)]
    page, size = int(values["CurrentPage"]), int(values["PageSize"])
    chosen = groups[(page - 1) * size : page * size]
    return _page(values, len(groups), [_group(group) for group in chosen])


def modify_group(context: Context, params: Mapping[str, object]) -> GroupsResult:
    """ModifyFaceGroup: change the name and description of a group, but not its code."""
    values = read(MODIFY_FACE_GROUP, params)

    def change(group: Group) -> None:
        with refusing():
            context.gallery.update_group(
                group.name,
                title=values["Name"],
                description=values["Description"] or None,
                id=group.id,
            )

    return _with_group(context, values, change)


def delete_group(context: Context, params: Mapping[str, object]) -> GroupsResult:
    """DeleteFaceGroup: delete a group and every face in it."""
    values = read(DELETE_FACE_GROUP, params)
    return _with_group(
        context, values, lambda group: context.gallery.delete_group(group.name, id=group.id)
    )


def query_records(context: Context, params: Mapping[str, object]) -> GroupsResult:
    """QueryFaceRecord: list one page of a group's records, by Id."""
    values = read(QUERY_FACE_RECORD, params)
    group = values["FaceGroupCode"]
    context.check_group(group)
    page, size = int(values["CurrentPage"]), int(values["PageSize"])
    filters: Any = {
        "user_id": values["MerchantUserId"] or None,
        "face_id": values["FaceId"] or None,
        "origin": values["RegistrationType"] or None,
    }
    count, records = 0, []
    if _may_exist(values["MerchantUserId"], values["FaceId"]):
        count = context.gallery.count(group, **filters)
        records = context.gallery.records(group, (page - 1) * size, size, **filters)
    return _page(values, count, [_record(record) for record in records])


def delete_record(context: Context, params: Mapping[str, object]) -> GroupsResult:
    """DeleteFaceRecord: delete one face."""
    values = read(DELETE_FACE_RECORD, params)
    try:
        record = context.gallery.record_by_id(int(values["Id"]))
        removed = 0
        if context.may_use(record.group):
            removed = context.gallery.remove(record.group, face_id=record.face_id)
    except (RecordNotFound, GroupNotFound):
        removed = 0
    return GroupsResult({"Data": removed})


def delete_record_v2(context: Context, params: Mapping[str, object]) -> GroupsResult:
    """DeleteFaceRecordV2: delete a user's faces in one group or in all groups."""
    values = read(DELETE_FACE_RECORD_V2, params)
    user_id, group = values["MerchantUserId"], values["FaceGroupCode"]
    gallery = context.gallery
    if group:
        context.check_group(group)
    deleted = []
    if _may_exist(user_id):
        for code in [group] if group else gallery.users_groups(user_id):
            with suppress(GroupNotFound):  # deleted meanwhile, with every face in it
                if context.may_use(code) and gallery.remove(code, user_id=user_id):
                    deleted.append(code)
    result = {"Deleted": "Y" if deleted else "N"}
    if not group:
        result["DeletedGroupCodes"] = ",".join(deleted)
    return GroupsResult({"Result": result})


def _may_exist(user_id: str, face_id: str = "") -> bool:
    """Whether a gallery can store these ids; "" stands for any."""
    try:
        if user_id:
            check_user_id(user_id)
        if face_id:
            check_face_id(face_id)
    except InvalidParameter:
        return False
    return True


def _with_group(
    context: Context, values: Values, change: Callable[[Group], object]
) -> GroupsResult:
    """Change a group; ``Data`` is 1, or 0 if the caller may use no group with this Id."""
    try:
        group = context.gallery.group_by_id(int(values["Id"]))
        if not context.may_use(group.name):
            return GroupsResult({"Data": 0})
        change(group)
    except GroupNotFound:
        return GroupsResult({"Data": 0})
    return GroupsResult({"Data": 1})


def _page(values: Values, count: int, items: list[dict[str, Any]]) -> GroupsResult:
    size = int(values["PageSize"])
    return GroupsResult(
        {
            "CurrentPage": int(values["CurrentPage"]),
            "PageSize": size,
            "TotalCount": count,
            "TotalPage": math.ceil(count / size),
            "Items": items,
        }
    )


def _group(group: Group) -> dict[str, Any]:
    return {
        "Id": group.id,
        "Code": group.name,
        "Name": group.title,
        "Description": group.description,
    }


def _record(record: FaceRecord) -> dict[str, Any]:
    """Convert a record, without ImgOssUrl: pictures are not stored."""
    return {
        "Id": record.id,
        "FaceId": record.face_id,
        "MerchantUserId": record.user_id,
        "RegistrationType": record.origin,
        "GmtCreate": record.created.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
