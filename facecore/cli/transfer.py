"""``facecore group import|export|load``: bulk enrolment and transfer between galleries."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from facecore._utils.text import count_of
from facecore.cli.common import GALLERY, MODELS, NO, OK, Answer, Commands, add_if_many
from facecore.cli.common import gallery as open_gallery
from facecore.errors import InvalidParameter

_IMPORT = """\
Add the faces of a folder of people, or of a CSV list, to a group.

PEOPLE is a folder with a folder per person, named by user_id; or a CSV file with the
header image,user_id and paths relative to it.  After Ctrl-C or a crash, the same command
resumes.  Refused pictures do not stop the import; --report lists them with the reason.

example:
  facecore group create staff --gallery door
  facecore group import staff-photos --gallery door --group staff --report refused.csv
"""

_EXPORT = """\
Export groups with their faces to a file, for another gallery.

The file contains the templates: protect it like the gallery.  The file of an encrypted gallery is
encrypted under the same key; --archive-key-file names another key, and --plain encrypts nothing.

example:
  facecore group export staff.jsonl --gallery door --group staff
"""

_LOAD = """\
Load the groups of a file written by facecore group export, or the faces of facecore embed.

Existing groups receive the faces that they do not hold yet.  An encrypted file is read with the
key of the gallery, or with that of --archive-key-file.

A file of facecore embed has no groups and users.  --group names the group.  With --user
folder, the folder of a picture names the person, and only the largest face of each picture
is stored; with --user picture, all faces are stored under the paths of their pictures.

examples:
  facecore group load staff.jsonl --gallery milvus+http://vectors:19530
  facecore group load applicants.parquet --group applicants --user picture --gallery door
"""


def add_verbs(group: Commands) -> None:
    """Add the commands of this module to ``facecore group``."""
    import_ = group.add("import", _import, _IMPORT, MODELS, GALLERY)
    import_.add_argument("source", metavar="PEOPLE", type=Path, help="folder, or CSV file")
    import_.add_argument("--group", required=True, help="a group that exists")
    import_.add_argument(
        "--report",
        metavar="CSV",
        type=Path,
        help="list refused pictures: image,user_id,code,message",
    )
    add_if_many(import_)
    export = group.add("export", _export, _EXPORT, MODELS, GALLERY)
    export.add_argument("file", metavar="OUT", type=Path, help="file to write, or to replace")
    export.add_argument(
        "--group", action="append", help="group to export; may be repeated (default: all)"
    )
    under = export.add_mutually_exclusive_group()
    under.add_argument(
        "--archive-key-file", metavar="FILE", type=Path, help="encrypt the file with this key"
    )
    under.add_argument("--plain", action="store_true", help="never encrypt the file")
    load = group.add("load", _load, _LOAD, MODELS, GALLERY)
    load.add_argument("file", metavar="IN", type=Path, help="file of group export, or of embed")
    load.add_argument(
        "--archive-key-file", metavar="FILE", type=Path, help="key of an encrypted file"
    )
    load.add_argument("--group", help="group for the faces of an embed file")
    load.add_argument(
        "--user",
        choices=("folder", "picture"),
        help="source of the user id in an embed file (default: folder)",
    )


def _import(args: argparse.Namespace) -> Answer:
    from facecore.gallery.bulk_import import import_pictures

    with open_gallery(args) as gallery:
        result = import_pictures(
            gallery,
            args.group,
            args.source,
            report=args.report,
            progress=sys.stderr.isatty(),
            if_many=args.if_many,
        )
    rate = result.images / result.seconds if result.seconds else 0.0
    lines = [
        f"{count_of(result.images, 'image')} in {result.seconds:.0f} s ({rate:.0f} a second)",
        f"{count_of(result.added)} added, {result.present:,} already present",
    ]
    lines += [f"{count:,} refused: {code}" for code, count in result.refused().items()]
    if args.report:
        lines.append(f"reasons: {args.report}")
    nothing = result.images and not (result.added or result.present)
    return result.as_dict(), NO if nothing else OK, lines


def _export(args: argparse.Namespace) -> Answer:
    from facecore.gallery.archive import export_groups

    key = _archive_key(args)
    with open_gallery(args, read_only=True) as gallery:
        result = export_groups(
            gallery,
            args.file,
            args.group,
            progress=sys.stderr.isatty(),
            key=key,
            plain=args.plain,
        )
    lines = [
        f"{count_of(result.faces)} of {count_of(result.groups, 'group')} written to {args.file}"
    ]
    return {"file": str(args.file), "groups": result.groups, "faces": result.faces}, OK, lines


def _load(args: argparse.Namespace) -> Answer:
    from facecore.gallery.archive import load_groups
    from facecore.gallery.vector_file import UserFrom, is_vector_file, load_vectors

    vectors = is_vector_file(args.file)
    if vectors and not args.group:
        raise InvalidParameter("a file of facecore embed names no group", "give --group")
    if not vectors and (args.group or args.user):
        raise InvalidParameter("--group and --user are for files of facecore embed")
    shown, key = sys.stderr.isatty(), _archive_key(args)
    with open_gallery(args) as gallery:
        if vectors:
            user: UserFrom = args.user or "folder"
            result = load_vectors(gallery, args.file, args.group, user=user, progress=shown)
        else:
            result = load_groups(gallery, args.file, progress=shown, key=key)
    lines = [
        f"{count_of(result.faces)} of {count_of(result.groups, 'group')}: "
        f"{result.faces - result.present:,} added, {result.present:,} already present"
    ]
    return result.as_dict(), OK, lines


def _archive_key(args: argparse.Namespace) -> bytes | None:
    from facecore.gallery.keys import read_key

    return None if args.archive_key_file is None else read_key(args.archive_key_file)
