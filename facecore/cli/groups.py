"""``facecore group``, ``add``, ``search``, ``remove`` and ``rekey``: the faces of a gallery."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facecore._utils.text import count_of
from facecore.cli.common import (
    GALLERY,
    MODELS,
    NO,
    OK,
    Answer,
    Commands,
    add_if_many,
    crowd,
    gallery_key,
    place_of,
)
from facecore.cli.common import gallery as open_gallery
from facecore.cli.transfer import add_verbs as add_transfer_verbs
from facecore.errors import GroupExists

if TYPE_CHECKING:
    from facecore import FaceRecord, Group, Match

_CREATE = """\
Add an empty group; creates the folder of the gallery if it is missing.

example:
  facecore group create staff --title "Our staff" --gallery door
"""

_LIST = """\
List the groups of a gallery, or the faces of a group.

example:
  facecore group list --gallery door
  facecore group list staff --limit 20 --gallery door
"""

_COMPACT = """\
Check a gallery, and free the space of removed faces.

A removed face is overwritten at once, but the database keeps its space until compaction.
Compaction temporarily needs up to twice the size of the database on the disk.

example:
  facecore group compact --gallery door
"""

_ADD = """\
Store the largest face of a picture.

A picture that the user has in the group already is not stored again, unless --twice is given.

example:
  facecore add staff eileen.jpg eileen --gallery door
"""

_SEARCH = """\
Who is in a picture?  Lists the most similar stored faces, best first.

--far is the chance that a search for a person in none of the groups returns a match.  It
determines the threshold together with the number of faces, because a stranger is more likely to
resemble one of many.  --far none lists the best faces at any similarity.

exit status: 0 match found, 1 no match, 2 error

example:
  facecore search visitor.jpg --group staff --far 0.001 --gallery door
"""

_REMOVE = """\
Remove a user, or one face, from a group.

exit status: 0 removed, 1 nothing to remove, 2 error

example:
  facecore remove staff --user eileen --gallery door
"""

_REKEY = """\
Encrypt a gallery, decrypt it, or change its key.

Close the gallery in all processes first.  After an interruption, run the same command again.  A key
is 64 hexadecimal digits in a file that others cannot read.  Without the key, the faces are lost:
keep a copy of it.

example:
  (umask 077; openssl rand -hex 32 > door.key)
  facecore rekey --gallery door --new-key-file door.key
  facecore search visitor.jpg --gallery door --gallery-key-file door.key
"""


def add_commands(commands: Commands) -> None:
    """Add the commands of this module."""
    verbs = commands.group("group", "the groups of a gallery")
    create = verbs.add("create", _create, _CREATE, MODELS, GALLERY)
    create.add_argument("name", metavar="NAME", help="1 to 64 characters")
    create.add_argument("--title", default="", help="title to display")
    create.add_argument("--description", default="", help="description to display")
    create.add_argument("--exist-ok", action="store_true", help="succeed if the group exists")
    listing = verbs.add("list", _list, _LIST, MODELS, GALLERY)
    listing.add_argument("name", metavar="NAME", nargs="?", help="a group, to list its faces")
    listing.add_argument("--offset", type=int, default=0, help="number of entries to skip")
    listing.add_argument(
        "--limit", type=int, default=100, help="maximum number (default: %(default)s)"
    )
    delete = verbs.add("delete", _delete, "Delete a group and its faces.", MODELS, GALLERY)
    delete.add_argument("name", metavar="NAME", help="a group")
    verbs.add("compact", _compact, _COMPACT, MODELS, GALLERY)

    add_transfer_verbs(verbs)

    add = commands.add("add", _add, _ADD, MODELS, GALLERY)
    add.add_argument("group", metavar="GROUP", help="a group that exists")
    add.add_argument("image", metavar="IMG", help="picture")
    add.add_argument("user_id", metavar="USER", help="user id, 1 to 256 characters")
    add.add_argument(
        "--on-existing",
        choices=("add", "refuse", "replace"),
        default="add",
        help="if the group holds the user: add a face, refuse, or replace (default: %(default)s)",
    )
    add.add_argument("--twice", action="store_true", help="store the same picture again")
    add_if_many(add)

    search = commands.add("search", _search, _SEARCH, MODELS, GALLERY)
    search.add_argument("image", metavar="IMG", help="picture")
    search.add_argument(
        "--group", action="append", help="group to search; may be repeated (default: all)"
    )
    search.add_argument(
        "--limit", type=int, default=5, help="maximum number (default: %(default)s)"
    )
    least = search.add_mutually_exclusive_group()
    least.add_argument("--threshold", type=float, help="lowest score of a match")
    least.add_argument(
        "--far",
        type=_far,
        default=0.01,
        help="chance that a stranger gets a match, or the word none (default: %(default)s)",
    )
    search.add_argument(
        "--per", choices=("face", "user"), default="face", help="one match per face or user"
    )
    search.add_argument(
        "--calibration", metavar="FILE", help="calibration table, from: facecore calibrate"
    )

    remove = commands.add("remove", _remove, _REMOVE, MODELS, GALLERY)
    remove.add_argument("group", metavar="GROUP", help="a group that exists")
    which = remove.add_mutually_exclusive_group(required=True)
    which.add_argument("--user", help="all faces of this user")
    which.add_argument("--face", help="the face with this id")

    change = commands.add("rekey", _rekey, _REKEY, GALLERY)
    to = change.add_mutually_exclusive_group(required=True)
    to.add_argument("--new-key-file", metavar="FILE", type=Path, help="file with the new key")
    to.add_argument("--decrypt", action="store_true", help="decrypt the gallery")


def _create(args: argparse.Namespace) -> Answer:
    done = "created"
    with open_gallery(args) as gallery:
        try:
            made = gallery.create_group(args.name, title=args.title, description=args.description)
        except GroupExists:
            if not args.exist_ok:
                raise
            made, done = gallery.group(args.name), "exists"
    return _group(made), OK, [f"{made.name}: {done}, id {made.id}"]


def _list(args: argparse.Namespace) -> Answer:
    from facecore.gallery.records import check_count

    check_count(args.limit, "limit", 0)
    with open_gallery(args, read_only=True) as gallery:
        if args.name is None:
            # Read one more to see whether there are more: Milvus takes minutes to count all.
            groups = gallery.groups(offset=args.offset, limit=args.limit + 1)
            more = len(groups) > args.limit
            groups = groups[: args.limit]
            lines = [
                f"{group.name}  {count_of(group.size)}"
                + (f"  {group.title}" if group.title else "")
                for group in groups
            ]
            if more:
                lines.append(f"and more: --offset {args.offset + args.limit}")
            return {"groups": [_group(group) for group in groups], "more": more}, OK, lines
        records = gallery.records(args.name, args.offset, args.limit)
        count = gallery.count(args.name)
    lines = [f"{r.face_id}  {r.user_id}  {r.created:%Y-%m-%d %H:%M:%S}Z" for r in records]
    if len(records) < count:
        lines.append(f"{len(records):,} of {count:,}")
    faces = [record_fields(record) for record in records]
    return {"group": args.name, "count": count, "faces": faces}, OK, lines


def _delete(args: argparse.Namespace) -> Answer:
    with open_gallery(args) as gallery:
        count = gallery.delete_group(args.name)
    lines = [f"{args.name}: deleted, with {count_of(count)}"]
    return {"name": args.name, "faces": count}, OK, lines


def _compact(args: argparse.Namespace) -> Answer:
    from facecore.gallery.milvus.client import is_milvus

    with open_gallery(args) as gallery:
        if is_milvus(gallery.address):
            gallery.compact()
            return {}, OK, ["compaction requested; Milvus frees the space later"]
        before = gallery.stats()
        gallery.compact()
        after = gallery.stats()
    sizes = f"{before.store_bytes / 1e6:,.1f} MB before, {after.store_bytes / 1e6:,.1f} MB now"
    freed = count_of(before.removed, "removed face")
    lines = [f"{count_of(after.faces)}; freed the space of {freed}; {sizes}"]
    answer = {"faces": after.faces, "removed": before.removed}
    return {**answer, "bytes_before": before.store_bytes, "bytes": after.store_bytes}, OK, lines


def _add(args: argparse.Namespace) -> Answer:
    with open_gallery(args) as gallery:
        record = gallery.add(
            args.group,
            args.image,
            args.user_id,
            on_existing=args.on_existing,
            if_many=args.if_many,
            twice=args.twice,
        )
    done = "already has this picture in" if record.present else "added to"
    lines = [f"{record.user_id}: {done} {record.group}, {record.face_id}"]
    if record.others and not record.present:
        lines += crowd(args.image, record.others)
    answer = {**record_fields(record), "others": record.others, "present": record.present}
    return answer, OK, lines


def _far(text: str) -> float | None:
    try:
        return None if text == "none" else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor none") from None


def _search(args: argparse.Namespace) -> Answer:
    far: float | None = args.far if args.threshold is None else None
    with open_gallery(args, read_only=True) as gallery:
        sample = gallery.engine.sample(args.image)
        matches = gallery.search(
            sample,
            args.group,
            args.limit,
            threshold=args.threshold,
            far=far,
            per=args.per,
        )
        faces = len(gallery) if args.group is None else sum(map(gallery.count, set(args.group)))
    lines = [f"{m.score:5.1f}  {m.user_id}  {m.group}  {m.face_id}" for m in matches] or ["nobody"]
    chance = f"; a stranger gets a match in {100 * far:.3g}% of searches" if far else ""
    lines.append(f"{count_of(faces)} compared{chance}")
    others = len(sample.others)
    lines += crowd(args.image, others, "facecore identify searches for each")
    found = [match_fields(match) for match in matches]
    answer = {"matches": found, "faces": faces, "far": far, "others": others}
    return answer, OK if matches else NO, lines


def _remove(args: argparse.Namespace) -> Answer:
    with open_gallery(args) as gallery:
        count = gallery.remove(args.group, user_id=args.user, face_id=args.face)
    lines = [f"{count_of(count)} removed from {args.group}"]
    return {"group": args.group, "removed": count}, OK if count else NO, lines


def _rekey(args: argparse.Namespace) -> Answer:
    from facecore.gallery import rekey
    from facecore.gallery.keys import read_key

    new = None if args.decrypt else read_key(args.new_key_file)
    place = place_of(args)
    count = rekey(place, key=gallery_key(args), new_key=new)
    done = "not encrypted" if new is None else "encrypted under the new key"
    lines = [f"{place}: {done}, {count_of(count)}"]
    return {"gallery": place, "faces": count, "encrypted": new is not None}, OK, lines


def _group(group: Group) -> dict[str, Any]:
    return {
        "id": group.id,
        "name": group.name,
        "title": group.title,
        "description": group.description,
        "created": group.created.isoformat(),
        "size": group.size,
    }


def record_fields(record: FaceRecord) -> dict[str, Any]:
    """Convert a stored face to JSON fields."""
    return {
        "face_id": record.face_id,
        "user_id": record.user_id,
        "group": record.group,
        "quality": record.quality,
        "origin": record.origin,
        "created": record.created.isoformat(),
    }


def match_fields(match: Match) -> dict[str, Any]:
    """Convert a match to JSON fields."""
    return {
        "face_id": match.face_id,
        "user_id": match.user_id,
        "group": match.group,
        "score": round(match.score, 4),
        "similarity": round(match.similarity, 6),
    }
