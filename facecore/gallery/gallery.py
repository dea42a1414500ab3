"""Gallery: many stored faces, and who among them is on a picture."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Never

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facecore.errors import (
    ContractMismatch,
    FacecoreError,
    GroupExists,
    InvalidParameter,
    RecordNotFound,
)
from facecore.gallery import enrolment
from facecore.gallery.backend import Backend, Filter
from facecore.gallery.duplicates import DuplicateSet, duplicate_sets
from facecore.gallery.milvus.client import EXAMPLE, is_milvus
from facecore.gallery.records import (
    Contract,
    FaceRecord,
    GalleryStats,
    Group,
    Hit,
    Identification,
    Match,
    NewFace,
    OnExisting,
    Origin,
    Verification,
    check_choice,
    check_count,
    check_face_id,
    check_name,
    check_number,
    check_text,
    check_user_id,
    new_face_id,
)
from facecore.gallery.thresholds import best_of, check_far, score_threshold
from facecore.matching.grouping import assign
from facecore.matching.similarity import as_vectors, cosine
from facecore.pipeline import IfMany, check_alone

if TYPE_CHECKING:
    from facecore.engine import FaceChoice, FaceEngine, FaceInput
    from facecore.matching.calibration import Calibration

__all__ = ["Gallery"]

IndexChoice = Literal["auto", "exact", "hnsw"]
Per = Literal["face", "user"]


class Gallery:
    """Faces in named groups, kept on this machine, and the search among them.

    A context manager, and safe to share between threads.  One process may change a gallery at a
    time; any number of others may read it meanwhile (``read_only=True``) and see every change
    at their next call.  It passes neither through a fork nor through pickle (docs/processes.md).

    When a method that changes something returns, the change survives a crash of the process and
    a loss of power.  When `remove` or `delete_group` returns, no file of the folder holds the
    templates in any form (`GalleryStats.erasure_pending` tells the one exception).

    Parameters
    ----------
    address : str or PathLike
        A folder, made where it is missing; or, with the extra ``milvus``, a Milvus server,
        ``milvus+http://[user:password@]host:19530[/database]``, or a file of milvus-lite,
        ``milvus+file:///folder/name.db``.  What differs there is in docs/galleries.md.
    engine : FaceEngine
        Its pack decides which templates may be compared; a gallery stays with it for life.
    index : {"auto", "exact", "hnsw"}
        How a search is done; "exact", which "auto" means on this machine, compares with every
        face; "hnsw" makes an approximate index in the background, and searches of all groups
        use it when it is ready.  As far as was measured it is no faster at a high recall: see
        docs/galleries.md.
    read_only : bool, default False
        Open it beside the process that changes it.
    progress : bool, default False
        Show a bar on standard error while an index is built.

    Raises
    ------
    ContractMismatch
        The gallery holds templates of another pack.
    GalleryLocked
        It is open for writing already.
    GalleryCorrupt, GalleryNotWritable
        Its database is damaged; its folder cannot be written.
    GalleryUnavailable, MissingExtra
        The Milvus server cannot be reached; pymilvus is not installed.
    InvalidParameter
        An argument makes no sense; also where there is no gallery and `read_only` is set.

    Examples
    --------
    >>> import facecore, facecore.demo, tempfile
    >>> engine = facecore.FaceEngine()
    >>> astronaut = engine.sample(facecore.demo.read("astronaut"))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with facecore.Gallery(folder, engine) as gallery:
    ...         group = gallery.create_group("staff")
    ...         record = gallery.add("staff", astronaut, user_id="eileen")
    ...         [match.user_id for match in gallery.search(astronaut, far=0.001)]
    ['eileen']
    """

    def __init__(
        self,
        address: str | os.PathLike[str],
        engine: FaceEngine,
        *,
        index: IndexChoice = "auto",
        read_only: bool = False,
        progress: bool = False,
    ) -> None:
        check_choice(index, "index", IndexChoice)
        self.engine = engine
        if not isinstance(address, (str, os.PathLike)):
            raise InvalidParameter(f"address is {address!r:.80}", f"give a folder, or {EXAMPLE}")
        self.address = os.fspath(address)
        pack = engine.pack
        self._contract = Contract(engine.contract_id, pack.name, pack.embedder.output.dimension)
        self._backend = _open(self.address, self._contract, index, read_only, progress)

    def __repr__(self) -> str:
        address = re.sub("//[^/]*@", "//", self.address)  # without a password
        return f"Gallery({address!r}, pack={self._contract.pack!r})"

    def __reduce__(self) -> Never:
        raise InvalidParameter(
            "a gallery cannot be copied or pickled",
            "pass its address, and open it in the process that uses it",
        )

    def __enter__(self) -> Gallery:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return self._backend.comparisons(None)

    @property
    def contract_id(self) -> str:
        """Identity of the vector space; see `facecore.FaceEngine.contract_id`."""
        return self._contract.id

    def close(self) -> None:
        """Finish, and save an HNSW index.  Calling it again does nothing."""
        self._backend.close()

    def create_group(
        self, name: str, *, title: str = "", description: str = "", exist_ok: bool = False
    ) -> Group:
        """Add an empty group.

        Parameters
        ----------
        name : str
            1..64 characters, none of them a control character; unique and case-sensitive.
        title, description : str
            For people to read; at most 4,096 characters.
        exist_ok : bool, default False
            Where the group exists, return it as it is instead of raising GroupExists.

        Raises
        ------
        GroupExists, InvalidParameter
        """
        check_text(title, "title")
        check_text(description, "description")
        try:
            return self._backend.create_group(check_name(name), title, description)
        except GroupExists:
            if not exist_ok:
                raise
            return self._backend.group(name)

    def group(self, name: str) -> Group:
        """One group; raises GroupNotFound."""
        return self._backend.group(check_name(name))

    def group_by_id(self, id: int) -> Group:
        """One group by `Group.id`; raises GroupNotFound."""
        return self._backend.group_by_id(check_count(id, "id", 0))

    def groups(
        self, *, offset: int = 0, limit: int | None = None, title: str | None = None
    ) -> list[Group]:
        """Groups by their ids, from the `offset`-th, at most `limit`.

        With a `title`, only those that have it, letter for letter.
        """
        most = None if limit is None else check_count(limit, "limit", 0)
        return self._backend.groups(check_count(offset, "offset", 0), most, title)

    def update_group(
        self, name: str, *, title: str | None = None, description: str | None = None
    ) -> Group:
        """Change what people read about a group; None leaves it.  Raises GroupNotFound."""
        if title is not None:
            check_text(title, "title")
        if description is not None:
            check_text(description, "description")
        return self._backend.update_group(check_name(name), title, description)

    def delete_group(self, name: str) -> int:
        """Delete a group and the faces in it; return their number.  Raises GroupNotFound."""
        return self._backend.delete_group(check_name(name))

    def add(
        self,
        group: str,
        image: FaceInput,
        user_id: str,
        *,
        face: FaceChoice = "largest",
        origin: Origin = "MANUAL",
        on_existing: OnExisting = "add",
        if_many: IfMany = "largest",
    ) -> FaceRecord:
        """Store the face of an image, and its quality.

        Parameters
        ----------
        group : str
        image : image or FaceSample
            As in `facecore.FaceEngine.sample`.
        user_id : str
            1..256 characters, none of them a control character.
        face : {"largest", "central"}
            Which face stands for the image.
        origin : {"MANUAL", "AUTO"}
        on_existing : {"add", "refuse", "replace"}
            Where the group holds the user already: add another face, raise UserExists, or
            replace all of the user's faces there.  Decided and done in one step.
        if_many : {"largest", "refuse"}
            Where the image shows several faces: store the largest (`FaceRecord.others` counts
            the others), or raise SeveralFacesDetected.

        Raises
        ------
        GroupNotFound, UserExists, SeveralFacesDetected
        NoFaceDetected, UnreadableImage, ImageTooLarge, InvalidParameter
            As in `facecore.FaceEngine.sample`.
        GalleryLocked, GalleryNotWritable, GalleryCorrupt
            It cannot be stored, and nothing was changed.
        """
        check_choice(on_existing, "on_existing", OnExisting)
        check_choice(origin, "origin", Origin)
        check_choice(if_many, "if_many", IfMany)
        check_user_id(user_id)
        self._backend.group(check_name(group))  # before the models work
        sample = self.engine.sample(image, face=face)
        check_alone((sample.face, *sample.others), if_many)
        vector, quality = self.engine.embed(sample), self.engine.quality(sample).score
        new = NewFace(user_id, new_face_id(), quality, origin, datetime.now(UTC))
        (record,) = self._backend.add(group, [new], vector[None], on_existing)
        return replace(record, others=len(sample.others))

    def add_many(
        self,
        group: str,
        items: Iterable[tuple[FaceInput, str]],
        *,
        face: FaceChoice = "largest",
        batch_size: int = 32,
        progress: bool = False,
        if_many: IfMany = "largest",
    ) -> Iterator[FaceRecord | FacecoreError]:
        """Store the faces of many images, in their order, while the images are still being read.

        Their quality is not judged, as the engine's stream gives vectors alone:
        `FaceRecord.quality` is None.

        Parameters
        ----------
        group : str
        items : iterable of (image, user_id)
            Read lazily.
        face : {"largest", "central"}
            Which face stands for an image.
        batch_size : int, default 32
            Faces in one run of the embedder and in one transaction.
        progress : bool, default False
            Show a bar on standard error.
        if_many : {"largest", "refuse"}
            As in `add`.

        Yields
        ------
        FaceRecord or FacecoreError
            A record once it is durable; an error in the place of an image that has no face, say:
            one bad image never ends the run.

        Raises
        ------
        GroupNotFound, InvalidParameter
            At once, for the arguments.
        GalleryLocked, GalleryNotWritable, GalleryCorrupt
            From the iterator: what was yielded is stored.
        """
        batch_size = check_count(batch_size, "batch_size", 1)
        self._backend.group(check_name(group))
        pairs = enrolment.Pairs(items)
        vectors = self.engine.embed_many(pairs, batch_size, progress, face=face, if_many=if_many)
        return enrolment.stored(self._backend, group, pairs, vectors, batch_size)

    def add_templates(
        self,
        group: str,
        vectors: ArrayLike,
        user_ids: Sequence[str],
        *,
        contract: str,
        face_ids: Sequence[str] | None = None,
        quality: Sequence[float | None] | None = None,
        origin: Origin | Sequence[Origin] = "MANUAL",
        created: datetime | Sequence[datetime] | None = None,
    ) -> list[FaceRecord]:
        """Store templates that were made before: by another gallery, say.  All or none.

        Parameters
        ----------
        group : str
        vectors : array_like, shape (n, D), float32
            Of unit length (to 0.001); they are kept to the last bit.
        user_ids : sequence of str, n
        contract : str
            `FaceEngine.contract_id` of the engine that made them.
        face_ids : sequence of str, optional
            32 lower-case hexadecimal digits; by default new ones.
        quality : sequence of float or None, optional
        origin : str or sequence of str
        created : datetime or sequence of datetime, optional
            With a time zone; by default now.

        Raises
        ------
        ContractMismatch
            They belong to another vector space.
        GroupNotFound
        InvalidParameter
            A shape, a length or a value is wrong, or a face of that id is stored already.
        """
        if contract != self._contract.id:
            raise ContractMismatch(
                f"the templates are of {enrolment.pack_of(contract)} (contract {contract}), "
                f"the gallery is of the pack {self._contract.pack} (contract {self._contract.id})"
            )
        matrix = as_vectors(vectors, self._contract.dimension)
        faces = enrolment.new_faces(
            user_ids, face_ids=face_ids, quality=quality, origin=origin, created=created
        )
        if len(faces) != len(matrix):
            raise InvalidParameter(f"{len(matrix)} vectors and {len(faces)} user_ids were given")
        return self._backend.add(check_name(group), faces, matrix)

    def search(
        self,
        image: FaceInput,
        groups: str | Sequence[str] | None = None,
        limit: int = 5,
        *,
        face: FaceChoice = "largest",
        threshold: float | None = None,
        far: float | None = None,
        id_portrait: bool = False,
        per: Per = "face",
    ) -> list[Match]:
        """The stored faces most like the face of an image, best first.

        Parameters
        ----------
        image : image or FaceSample
        groups : str or sequence of str, optional
            Where to look; all groups by default.
        limit : int, default 5
            At most so many over all groups together.
        face : {"largest", "central"}
            Which face stands for the image.
        threshold : float, optional
            Only faces whose score, 0..100, is at least this.  Without it and without `far`, the
            best are given however little they are like the probe.
        far : float, optional
            The chance, above 0 and below 1, that a person who is in none of the groups finds
            anybody; the threshold follows from it, the calibration and the number of faces that
            are compared.  See docs/galleries.md.
        id_portrait : bool, default False
            As in `facecore.FaceEngine.compare`: the image, or every stored face, is an ID portrait.
        per : {"face", "user"}
            Whether each face of a user is a match, or each user once, by the best face.

        Raises
        ------
        GroupNotFound
        InvalidParameter
            An argument makes no sense, or `far` is rarer than the calibration reaches.
        NoFaceDetected, UnreadableImage, ImageTooLarge
            As in `facecore.FaceEngine.sample`.
        """
        names = self._check_search(groups, limit, threshold, far)
        check_choice(per, "per", Per)
        table = self.engine.calibration_for(id_portrait)
        vector = self.engine.embed(image, face=face)
        return self._matches(vector, names, limit, threshold, far, table, per)

    def verify(
        self,
        image: FaceInput,
        group: str,
        user_id: str,
        *,
        face: FaceChoice = "largest",
        threshold: float | None = None,
        id_portrait: bool = False,
    ) -> Verification:
        """Whether the face of an image is a user's, by the best of the user's templates.

        Several templates are several chances for a stranger too; `Verification.score` counts
        them, so that the same threshold means the same false accept rate.

        Parameters
        ----------
        image : image or FaceSample
        group, user_id : str
        face : {"largest", "central"}
            Which face stands for the image.
        threshold : float, optional
            Score from which it passes, 0..100; the engine's by default.
        id_portrait : bool, default False
            As in `search`.

        Raises
        ------
        GroupNotFound
        RecordNotFound
            The group holds no face of the user.
        NoFaceDetected, UnreadableImage, ImageTooLarge, InvalidParameter
            As in `facecore.FaceEngine.sample`.
        """
        limit = self.engine.threshold
        if threshold is not None:
            limit = check_number(threshold, "threshold", 0, 100)
        table = self.engine.calibration_for(id_portrait)
        which = _filter(group, user_id, None, None)
        self._backend.group(group)
        batches = list(self._backend.templates(which, 1000))
        if not batches:
            raise RecordNotFound(f"the group {group} holds no face of the user {user_id}")
        records = [record for some, _ in batches for record in some]
        templates = np.concatenate([vectors for _, vectors in batches])
        similarity = cosine(templates, self.engine.embed(image, face=face)[None])
        best = int(np.argmax(similarity))
        score = best_of(table, float(similarity[best]), len(records))
        return Verification(
            passed=score >= limit,
            score=score,
            similarity=float(similarity[best]),
            threshold=limit,
            face_id=records[best].face_id,
            templates=len(records),
        )

    def identify(
        self,
        image: FaceInput,
        groups: str | Sequence[str] | None = None,
        far: float = 0.01,
        *,
        limit: int = 5,
        once: bool = True,
    ) -> list[Identification]:
        """Who each face of an image is: a user, or nobody.

        Parameters
        ----------
        image : image or FaceSample
        groups : str or sequence of str, optional
            Where to look; all groups by default.
        far : float, default 0.01
            As in `search`, for each face.
        limit : int, default 5
            Candidates for each face.
        once : bool, default True
            Whether a user can be on the picture only once; the most similar face wins.

        Returns
        -------
        list of Identification
            One a face, largest first.

        Raises
        ------
        GroupNotFound
        InvalidParameter
            An argument makes no sense, or `far` is rarer than the calibration reaches.
        UnreadableImage, ImageTooLarge
            As in `facecore.FaceEngine.samples`.
        """
        names = self._check_search(groups, limit, None, far)
        table = self.engine.calibration
        least = score_threshold(table, far, self._backend.comparisons(names))
        samples = self.engine.samples(image)
        found = [
            self._matches(self.engine.embed(sample), names, limit, None, None, table, "user")
            for sample in samples
        ]
        users = list({match.user_id: None for some in found for match in some})
        scores = np.full((len(samples), len(users)), -1.0)
        for scored, some in zip(scores, found, strict=True):
            scored[[users.index(match.user_id) for match in some]] = [m.score for m in some]
        chosen = assign(scores, least, once=once)
        return [
            Identification(
                sample.face,
                next((m for m in some if i is not None and m.user_id == users[i]), None),
                tuple(some),
            )
            for sample, some, i in zip(samples, found, chosen, strict=True)
        ]

    def duplicates(
        self,
        groups: str | Sequence[str],
        far: float = 0.001,
        *,
        different_users: bool = False,
        progress: bool = False,
    ) -> list[DuplicateSet[FaceRecord]]:
        """Faces of one person in a group, or in several groups: all pairs are compared.

        Parameters
        ----------
        groups : str or sequence of str
            One group: all of its pairs.  Several: pairs of faces in different groups.
        far : float, default 0.001
            The chance, above 0 and below 1, that any pair of different people is found, over all
            pairs together.
        different_users : bool, default False
            Leave out pairs of faces of one user.
        progress : bool, default False
            Show a bar on standard error.

        Raises
        ------
        GroupNotFound
        InvalidParameter
            An argument makes no sense, or the rate for one pair is rarer than the calibration
            reaches.
        """
        names = self._check_search(groups, 1, None, far) or []
        batches = [batch for name in names for batch in self.templates(name, 10_000)]
        if not batches:
            return []
        records = [record for some, _ in batches for record in some]
        labels: list[list[str]] = []
        if len(names) > 1:
            labels.append([record.group for record in records])
        if different_users:
            labels.append([record.user_id for record in records])
        return duplicate_sets(
            records,
            np.concatenate([vectors for _, vectors in batches]),
            self.engine.calibration,
            far,
            apart=labels,
            progress=progress,
        )

    def search_many(
        self,
        images: Iterable[FaceInput],
        groups: str | Sequence[str] | None = None,
        limit: int = 5,
        *,
        face: FaceChoice = "largest",
        threshold: float | None = None,
        far: float | None = None,
        id_portrait: bool = False,
        batch_size: int = 32,
        progress: bool = False,
    ) -> Iterator[list[Match] | FacecoreError]:
        """`search` for many images, in their order.

        Yields
        ------
        list of Match, or FacecoreError
            The error stands in the place of an image that has no vector.
        """
        names = self._check_search(groups, limit, threshold, far)
        table = self.engine.calibration_for(id_portrait)
        vectors = self.engine.embed_many(images, batch_size, progress, face=face)
        return (
            v
            if isinstance(v, FacecoreError)
            else self._matches(v, names, limit, threshold, far, table)
            for v in vectors
        )

    def remove(self, group: str, *, user_id: str | None = None, face_id: str | None = None) -> int:
        """Remove all faces of a user, or one face, from a group.

        Returns
        -------
        int
            How many there were.

        Raises
        ------
        GroupNotFound
        InvalidParameter
            Neither or both of `user_id` and `face_id` are given.
        """
        if (user_id is None) == (face_id is None):
            raise InvalidParameter("give one of user_id and face_id")
        if user_id is not None:
            check_user_id(user_id)
        if face_id is not None:
            check_face_id(face_id)
        return self._backend.remove(check_name(group), user_id, face_id)

    def record(self, face_id: str) -> FaceRecord:
        """One record; raises RecordNotFound."""
        return self._backend.record(check_face_id(face_id))

    def record_by_id(self, id: int) -> FaceRecord:
        """One record by `FaceRecord.id`; raises RecordNotFound."""
        return self._backend.record_by_id(check_count(id, "id", 0))

    def records(
        self,
        group: str | None = None,
        offset: int = 0,
        limit: int = 100,
        *,
        user_id: str | None = None,
        face_id: str | None = None,
        origin: Origin | None = None,
    ) -> list[FaceRecord]:
        """Records by their ids, from the `offset`-th of those that fit, at most `limit`.

        What is None does not matter; a group that does not exist raises GroupNotFound.
        """
        which = _filter(group, user_id, face_id, origin)
        page = check_count(offset, "offset", 0), check_count(limit, "limit", 0)
        return self._backend.records(which, *page)

    def count(
        self,
        group: str | None = None,
        *,
        user_id: str | None = None,
        face_id: str | None = None,
        origin: Origin | None = None,
    ) -> int:
        """Number of records that fit; as in `records`."""
        return self._backend.count(_filter(group, user_id, face_id, origin))

    def known(self, face_ids: Iterable[str]) -> set[str]:
        """Those of the ids that faces of the gallery have."""
        return self._backend.known([check_face_id(face_id) for face_id in face_ids])

    def templates(
        self, group: str | None = None, batch_size: int = 1000
    ) -> Iterator[tuple[list[FaceRecord], NDArray[np.float32]]]:
        """All records with their templates, by id, in batches: for an export.

        Yields
        ------
        list of FaceRecord, ndarray of shape (n, D), float32
            Each batch is as of one moment; what is added meanwhile comes at the end.
        """
        batch_size = check_count(batch_size, "batch_size", 1)
        if group is not None:
            self._backend.group(check_name(group))
        return self._backend.templates(Filter(group), batch_size)

    def users_groups(self, user_id: str) -> list[str]:
        """Names of the groups that hold a user, the oldest group first."""
        return self._backend.groups_of(check_user_id(user_id))

    def stats(self) -> GalleryStats:
        """How large the gallery is, and the state of its index."""
        return self._backend.stats()

    def compact(self) -> None:
        """Check the database, free the space of removed faces and bring the index up to date.

        Needs up to twice the size of the database on the disk while it runs.
        """
        self._backend.compact()

    def _check_search(
        self,
        groups: str | Sequence[str] | None,
        limit: int,
        threshold: float | None,
        far: float | None,
    ) -> list[str] | None:
        check_count(limit, "limit", 1)
        if threshold is not None and far is not None:
            raise InvalidParameter("threshold and far were both given", "give one of them")
        if threshold is not None:
            check_number(threshold, "threshold", 0, 100)
        if far is not None:
            check_far(far)
        if groups is None:
            return None
        if not isinstance(groups, Iterable):
            raise InvalidParameter(f"groups is {groups!r:.80}", "give a name, or a list of names")
        names = [groups] if isinstance(groups, str) else list(groups)
        return list(dict.fromkeys(check_name(name) for name in names))

    def _matches(
        self,
        vector: NDArray[np.float32],
        groups: list[str] | None,
        limit: int,
        threshold: float | None,
        far: float | None,
        table: Calibration,
        per: Per = "face",
    ) -> list[Match]:
        least = 0.0 if threshold is None else threshold
        if far is not None:
            least = score_threshold(table, far, self._backend.comparisons(groups))
        matches = []
        for hit in self._hits(vector, groups, limit, per):
            score, face = float(table.score(hit.similarity)), hit.record
            if score >= least:
                matches.append(Match(face.face_id, face.user_id, face.group, score, hit.similarity))
        return matches

    def _hits(
        self, vector: NDArray[np.float32], groups: list[str] | None, limit: int, per: Per
    ) -> list[Hit]:
        if per == "face":
            return self._backend.search(vector, groups, limit)
        faces = 4 * limit
        while True:  # more and more faces, until there are enough users
            hits = self._backend.search(vector, groups, faces)
            users: dict[str, Hit] = {}
            for hit in hits:
                users.setdefault(hit.record.user_id, hit)
            if len(users) >= limit or len(hits) < faces:
                return list(users.values())[:limit]
            faces *= 4


def _filter(
    group: str | None, user_id: str | None, face_id: str | None, origin: Origin | None
) -> Filter:
    if group is not None:
        check_name(group)
    if user_id is not None:
        check_user_id(user_id)
    if face_id is not None:
        check_face_id(face_id)
    if origin is not None:
        check_choice(origin, "origin", Origin)
    return Filter(group, user_id, face_id, origin)


def _open(
    address: str, contract: Contract, index: IndexChoice, read_only: bool, progress: bool
) -> Backend:
    if is_milvus(address):
        from facecore.gallery.milvus.backend import MilvusBackend

        return MilvusBackend(address, contract, index=index, read_only=read_only)
    if scheme := re.match(r"([a-z][a-z0-9+.-]+)://", address):
        raise InvalidParameter(
            f"{scheme[1]} galleries are not known", f"give a folder, or {EXAMPLE}"
        )
    from facecore.gallery.sqlite.backend import SqliteBackend

    return SqliteBackend(
        Path(address), contract, index=index, read_only=read_only, progress=progress
    )
