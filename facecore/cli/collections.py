"""``facecore who``, ``identify``, ``duplicates`` and ``cluster``: collections of faces."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from facecore._utils.text import count_of
from facecore.cli.common import GALLERY, MODELS, NO, OK, Answer, Commands
from facecore.cli.common import engine as engine_of
from facecore.cli.common import gallery as open_gallery
from facecore.cli.compare import face_fields, place
from facecore.cli.groups import match_fields, record_fields
from facecore.errors import InvalidParameter

if TYPE_CHECKING:
    from facecore import Face, FaceEngine
    from facecore.collections import FoundFace, NamedFace, Unreadable, VectorCache
    from facecore.gallery.duplicates import DuplicateSet

T = TypeVar("T")

_WHO = """\
Who is in this photo?

KNOWN holds a folder per person, or files named after people (eileen.jpg, eileen_2.jpg).
The first call embeds these pictures; later calls read the vectors from a cache.

exit status: 0 at least one face is known, 1 none, 2 error

example:
  facecore who party.jpg friends --draw named.jpg
"""

_IDENTIFY = """\
Who of the users of a gallery is in this photo?

exit status: 0 at least one face is known, 1 none, 2 error

example:
  facecore identify party.jpg --gallery door --draw named.jpg
"""

_DUPLICATES = """\
Find pictures of a folder, or faces of a gallery, that show the same person.

--far is the chance, over all pairs together, that any pair of different people is listed.
With several --group, faces of different groups are compared.  --largest, --smallest and
--no-cache are options of a folder, --different-users one of --group.

exit status: 0 duplicates found, 1 none, 2 error

examples:
  facecore duplicates applicants --json
  facecore duplicates --gallery door --group staff
"""

_CLUSTER = """\
Group the faces of a folder by person.

Writes to PEOPLE a folder per person with links to the pictures, people.csv and people.json.
After an interruption, the same command resumes.  --known takes a folder per person, such as
PEOPLE with its folders renamed, or files named after people: a group that shows one of them
gets that name.

example:
  facecore cluster holiday --out people --report people.html
"""


def add_commands(commands: Commands) -> None:
    """Add the commands of this module."""
    who = commands.add("who", _who, _WHO, MODELS)
    who.add_argument("photo", metavar="PHOTO", help="picture")
    who.add_argument("known", metavar="KNOWN", type=Path, help="folder of people")
    identify = commands.add("identify", _identify, _IDENTIFY, MODELS, GALLERY)
    identify.add_argument("photo", metavar="PHOTO", help="picture")
    identify.add_argument(
        "--group", action="append", help="group to search; may be repeated (default: all)"
    )
    for command in (who, identify):
        command.add_argument(
            "--far",
            type=float,
            default=0.01,
            help="chance that a stranger gets a name (default: %(default)s)",
        )
        command.add_argument(
            "--twice", action="store_true", help="let a person appear more than once in the photo"
        )
        command.add_argument(
            "--draw", metavar="OUT", type=Path, help="write the photo with the names"
        )

    duplicates = commands.add("duplicates", _duplicates, _DUPLICATES, MODELS, GALLERY)
    duplicates.add_argument(
        "folder", metavar="DIR", type=Path, nargs="?", help="folder of pictures"
    )
    duplicates.add_argument("--group", action="append", help="gallery group; may be repeated")
    duplicates.add_argument(
        "--different-users", action="store_true", help="leave out pairs of one user's faces"
    )
    duplicates.add_argument(
        "--far",
        type=float,
        default=0.001,
        help="chance of any wrong pair (default: %(default)s)",
    )
    duplicates.add_argument(
        "--threshold", type=float, help="lowest score of a pair, instead of --far"
    )

    cluster = commands.add("cluster", _cluster, _CLUSTER, MODELS)
    cluster.add_argument("folder", metavar="DIR", type=Path, help="folder of pictures")
    cluster.add_argument("--out", metavar="PEOPLE", type=Path, help="folder to create")
    cluster.add_argument("--report", metavar="HTML", type=Path, help="HTML report to write")
    cluster.add_argument("--known", metavar="DIR", type=Path, help="folder of known people")
    cluster.add_argument(
        "--far",
        type=float,
        default=0.9,
        help="chance that a face matches a stranger's (default: %(default)s)",
    )
    for command in (duplicates, cluster):
        command.add_argument(
            "--largest", action="store_true", help="only the largest face of each picture"
        )
        command.add_argument(
            "--smallest",
            type=float,
            help="minimum size of a face, in pixels (default: 48)",
        )
    for command in (who, duplicates, cluster):
        command.add_argument(
            "--no-cache", action="store_true", help="neither read nor write the vector cache"
        )


@contextlib.contextmanager
def _cache(args: argparse.Namespace, engine: FaceEngine) -> Iterator[VectorCache | None]:
    from facecore.collections import VectorCache

    if args.no_cache:
        yield None
        return
    with VectorCache(engine) as cache:
        yield cache


def _who(args: argparse.Namespace) -> Answer:
    from facecore.collections import who

    engine = engine_of(args)
    with _cache(args, engine) as cache:
        answer = who(
            engine,
            args.photo,
            args.known,
            cache,
            far=args.far,
            once=not args.twice,
            progress=sys.stderr.isatty(),
        )
    lines = [f"{place(one.face)}: {_name(one)}" for one in answer.faces] or [_nobody(args)]
    lines += _largest(answer.crowded)
    lines += _refused(answer.refused)
    lines += _draw(args, [(one.face, one.name) for one in answer.faces])
    fields = {
        "threshold": round(answer.threshold, 4),
        "faces": [
            {
                "name": one.name,
                "score": round(one.score, 4),
                "similarity": round(one.similarity, 6),
                "picture": str(one.picture),
                **face_fields(one.face),
            }
            for one in answer.faces
        ],
        "known": {"people": answer.people, "pictures": answer.pictures},
        "crowded": [str(path) for path in answer.crowded],
        "refused": _refused_fields(answer.refused),
    }
    known = any(one.name is not None for one in answer.faces)
    return fields, OK if known else NO, lines


def _nobody(args: argparse.Namespace) -> str:
    return f"no face that can be recognised in {args.photo}"


def _name(one: NamedFace) -> str:
    if one.name is None:
        return f"unknown (the nearest, {one.picture.name}, scores {one.score:.1f})"
    return f"{one.name}, score {one.score:.1f} ({one.picture.name})"


def _draw(args: argparse.Namespace, faces: Sequence[tuple[Face, str | None]]) -> list[str]:
    if not args.draw:
        return []
    from facecore import images
    from facecore.drawing import draw_faces, write_image

    labels = [name or "unknown" for _, name in faces]
    pixels = images.load(args.photo)
    write_image(args.draw, draw_faces(pixels, [face for face, _ in faces], labels=labels))
    return [f"picture written to {args.draw}"]


def _identify(args: argparse.Namespace) -> Answer:
    with open_gallery(args, read_only=True) as gallery:
        found = gallery.identify(args.photo, args.group, args.far, once=not args.twice)
    lines, fields = [], []
    for one in found:
        best = one.match or next(iter(one.candidates), None)
        name = "unknown"
        if one.match:
            name = f"{one.match.user_id}, score {one.match.score:.1f} ({one.match.group})"
        elif best:
            name = f"unknown (the nearest, {best.user_id}, scores {best.score:.1f})"
        lines.append(f"{place(one.face)}: {name}")
        fields.append(
            {
                "match": one.match and match_fields(one.match),
                "candidates": [match_fields(match) for match in one.candidates],
                **face_fields(one.face),
            }
        )
    names = [None if one.match is None else one.match.user_id for one in found]
    lines = lines or [_nobody(args)]
    lines += _draw(args, list(zip((one.face for one in found), names, strict=True)))
    known = any(one.match for one in found)
    return {"faces": fields}, OK if known else NO, lines


def _duplicates(args: argparse.Namespace) -> Answer:
    if bool(args.folder) == bool(args.group):
        raise InvalidParameter("give a folder of pictures, or --gallery and --group")
    _refuse_foreign(args)
    if args.group:
        with open_gallery(args, read_only=True) as gallery:
            records = gallery.duplicates(
                args.group,
                args.far,
                threshold=args.threshold,
                different_users=args.different_users,
                progress=sys.stderr.isatty(),
            )
        return _sets(
            args, records, record_fields, lambda r: f"{r.user_id}  {r.group}  {r.face_id}", []
        )
    from facecore.collections import folder_duplicates
    from facecore.collections.folder import face_fields as found_fields

    engine = engine_of(args)
    _check(args, engine)
    faces, refused = _read(args, engine, args.folder)
    sets = folder_duplicates(
        faces,
        engine.calibration,
        args.far,
        threshold=args.threshold,
        progress=sys.stderr.isatty(),
    )
    return _sets(args, sets, found_fields, lambda face: str(face.path), refused)


def _refuse_foreign(args: argparse.Namespace) -> None:
    """Refuse the options of a folder with a gallery, and those of a gallery with a folder."""
    place, foreign = "a folder", ("gallery", "gallery_key_file", "different_users")
    if args.group:
        place, foreign = "--group", ("largest", "smallest", "no_cache")
    for name in foreign:
        if (value := getattr(args, name)) is not None and value is not False:
            option = f"--{name.replace('_', '-')}"
            raise InvalidParameter(f"{option} cannot be used with {place}", "leave it out")


def _sets(
    args: argparse.Namespace,
    sets: Sequence[DuplicateSet[T]],
    fields: Callable[[T], dict[str, Any]],
    line: Callable[[T], str],
    refused: Sequence[Unreadable],
) -> Answer:
    lines = []
    for one in sets:
        best = one.pairs[0].score
        lines.append(f"{len(one.members)} faces of one person, best score {best:.1f}:")
        lines += [f"  {line(member)}" for member in one.members]
    answer = {
        "sets": [
            {
                "faces": [fields(member) for member in one.members],
                "pairs": [
                    {"first": p.first, "second": p.second, "score": round(p.score, 4)}
                    for p in one.pairs
                ],
            }
            for one in sets
        ],
        "refused": _refused_fields(refused),
    }
    lines = lines or ["no duplicates"]
    if args.threshold is None:
        lines.append(
            f"the chance that any pair is wrong is {args.far:g}; a lower --threshold lists more"
        )
    return answer, OK if sets else NO, lines + _refused(refused)


def _cluster(args: argparse.Namespace) -> Answer:
    from facecore._utils.atomic_files import check_writable
    from facecore.collections import cluster, read_known
    from facecore.collections.folder import as_dict, check_absent, write_people
    from facecore.collections.report import write_report

    if args.out:
        check_absent(args.out)
    if args.report:
        check_writable(args.report)
    engine = engine_of(args)
    _check(args, engine)
    known: dict[str, list[FoundFace]] = {}
    crowded: Sequence[Path] = ()
    refused: list[Unreadable] = []
    if args.known:
        with _cache(args, engine) as cache:
            read = read_known(engine, args.known, cache, progress=sys.stderr.isatty())
        for name, face in read.faces:
            known.setdefault(name, []).append(face)
        crowded, refused = read.crowded, list(read.refused)
    faces, more = _read(args, engine, args.folder)
    refused += more
    answer = cluster(faces, engine.calibration, args.far, known=known, progress=sys.stderr.isatty())
    groups = [person for person in answer.people if len(person.faces) > 1 or person.known]
    lines = [f"{person.name}  {count_of(len(person.faces))}" for person in groups]
    alone = len(answer.people) - len(groups)
    lines.append(f"{count_of(alone)} without a match")
    if args.out:
        write_people(answer, args.out)
        lines.append(f"links written to {args.out}")
    if args.report:
        write_report(answer, args.report)
        lines.append(f"report written to {args.report}")
    fields = {
        **as_dict(answer),
        "crowded": [str(path) for path in crowded],
        "refused": _refused_fields(refused),
    }
    return fields, OK, lines + _largest(crowded) + _refused(refused)


def _check(args: argparse.Namespace, engine: FaceEngine) -> None:
    """Check --far and the pack's calibration before the folder is embedded."""
    from facecore.gallery.thresholds import check_far

    check_far(args.far)
    _ = engine.threshold  # raises NotCalibrated


def _read(
    args: argparse.Namespace, engine: FaceEngine, folder: Path
) -> tuple[list[FoundFace], list[Unreadable]]:
    from facecore.collections import read_folder

    options = {} if args.smallest is None else {"smallest": args.smallest}
    with _cache(args, engine) as cache:
        return read_folder(
            engine,
            folder,
            cache,
            all_faces=not args.largest,
            progress=sys.stderr.isatty(),
            **options,
        )


def _largest(crowded: Sequence[Path]) -> list[str]:
    return [f"{path}: several faces; the largest was used" for path in crowded]


def _refused(refused: Sequence[Unreadable]) -> list[str]:
    return [f"{one.path}: {one.code}: {one.message}" for one in refused]


def _refused_fields(refused: Sequence[Unreadable]) -> list[dict[str, Any]]:
    return [{"picture": str(r.path), "code": r.code, "message": r.message} for r in refused]
