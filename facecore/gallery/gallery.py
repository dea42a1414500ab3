"""Gallery: stored faces in groups, with search, verification and identification."""

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

from facecore._utils.atomic_files import absolute
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
from facecore.gallery.keys import GalleryKey, as_key
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
    """Store faces in named groups on this machine, and search them.

    A context manager; safe to share between threads.  One process at a time may change a
    gallery; any number of others may read it meanwhile (``read_only=True``) and see every change
    at their next call.  It cannot be pickled or used in a forked child (docs/processes.md).

    Once a method that changes the gallery returns, the change survives a process crash and a
    power loss.  Once `remove` or `delete_group` returns, no file in the folder holds the removed
    templates in any form (`GalleryStats.erasure_pending` reports the one exception).

    Parameters
    ----------
    address : str or PathLike
        A folder, created if missing; or, with the extra ``milvus``, a Milvus server,
        ``milvus+http://[user:password@]host:19530[/database]``, or a milvus-lite file,
        ``milvus+file:///folder/name.db``.  See docs/galleries.md for the differences.
    engine : FaceEngine
        Its pack defines which templates are comparable.  A gallery never changes its pack.
    index : {"auto", "exact", "hnsw"}
        Search method.  "exact" compares with every face; "auto" means "exact" on this machine.
        "hnsw" builds an approximate index in the background; searches of all groups use it once
        it is ready.  In our measurements it is no faster at high recall: see docs/galleries.md.
    read_only : bool, default False
        Open without write access, while another process may change the gallery.
    progress : bool, default False
        Show a progress bar on standard error while an index is built.
    key : bytes, str or callable, optional
        Key of the folder's encrypted database (extra ``encryption``): 32 bytes, 64 hexadecimal
        digits, or a function that returns one of these.  A new gallery is encrypted with the key,
        and each later opening needs the same key.  `facecore.gallery.rekey` changes the key.

    Raises
    ------
    WrongKey
        The gallery is encrypted under another key; it is encrypted and no key was given; or a key
        was given and it is not encrypted.
    ContractMismatch
        The gallery holds templates of another pack.
    GalleryLocked
        The gallery is already open for writing.
    GalleryCorrupt, GalleryNotWritable
        The database is damaged, or the folder is not writable, respectively.
    GalleryUnavailable
        The Milvus server cannot be reached.
    MissingExtra
        pymilvus is not installed, or sqlcipher3 if a key is given.
    InvalidParameter
        An argument is invalid, or `read_only` is set and there is no gallery.

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
        key: GalleryKey | None = None,
    ) -> None:
        check_choice(index, "index", IndexChoice)
        self.engine = engine
        if not isinstance(address, (str, os.PathLike)):
            raise InvalidParameter(f"address is {address!r:.80}", f"give a folder, or {EXAMPLE}")
        self.address = os.fspath(address)
        if not (is_milvus(self.address) or "://" in self.address):
            # A folder; the working directory may change.
            self.address = str(absolute(Path(self.address)))
        pack = engine.pack
        self._contract = Contract(engine.contract_id, pack.name, pack.embedder.output.dimension)
        self.key = None if key is None else as_key(key)
        self._backend = _open(self.address, self._contract, index, read_only, progress, self.key)

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
        """Close the gallery and save its HNSW index, if any.  Further calls do nothing."""
        self._backend.close()

    def create_group(
        self, name: str, *, title: str = "", description: str = "", exist_ok: bool = False
    ) -> Group:
        """Add an empty group.

        Parameters
        ----------
        name : str
            1..64 characters, no control characters; unique, case-sensitive.
        title, description : str
            Free text for people; at most 4,096 characters.
        exist_ok : bool, default False
            Return an existing group unchanged instead of raising GroupExists.

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
        """Return a group by name; raises GroupNotFound."""
        return self._backend.group(check_name(name))

    def group_by_id(self, id: int) -> Group:
        """Return a group by `Group.id`; raises GroupNotFound."""
        return self._backend.group_by_id(check_count(id, "id", 0))

    def groups(
        self, *, offset: int = 0, limit: int | None = None, title: str | None = None
    ) -> list[Group]:
        """List at most `limit` groups in order of id, starting at position `offset`.

        `title` selects the groups with exactly this title.
        """
        most = None if limit is None else check_count(limit, "limit", 0)
        return self._backend.groups(check_count(offset, "offset", 0), most, title)

    def update_group(
        self,
        name: str,
        *,
        title: str | None = None,
        description: str | None = None,
        id: int | None = None,
    ) -> Group:
        """Change a group's title or description; None keeps it.  Raises GroupNotFound.

        If `id` is given and the group has another id, GroupNotFound is raised too.
        """
        if title is not None:
            check_text(title, "title")
        if description is not None:
            check_text(description, "description")
        number = None if id is None else check_count(id, "id", 0)
        return self._backend.update_group(check_name(name), title, description, number)

    def delete_group(self, name: str, *, id: int | None = None) -> int:
        """Delete a group and its faces; return the number of faces.  Raises GroupNotFound.

        `id` as in `update_group`.
        """
        number = None if id is None else check_count(id, "id", 0)
        return self._backend.delete_group(check_name(name), number)

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
        twice: bool = False,
    ) -> FaceRecord:
        """Store the face in an image, with its quality.

        Parameters
        ----------
        group : str
        image : image or FaceSample
            As in `facecore.FaceEngine.sample`.
        user_id : str
            1..256 characters, no control characters.
        face : {"largest", "central"}
            Which face of the image to use.
        origin : {"MANUAL", "AUTO"}
        on_existing : {"add", "refuse", "replace"}
            If the group already holds the user: add another face, raise UserExists, or replace
            all of the user's faces there.  Check and change are one atomic step.
        if_many : {"largest", "refuse"}
            If the image shows several faces: store the largest (`FaceRecord.others` counts the
            others), or raise SeveralFacesDetected.
        twice : bool, default False
            Store a picture even if the user already has it in the group.  By default, nothing is
            stored, and the existing record is returned with `FaceRecord.present` true.
            Pictures are the same if their vectors are equal up to rounding.  Two threads that add
            one picture at the same moment may both store it.

        Raises
        ------
        GroupNotFound, UserExists, SeveralFacesDetected
        NoFaceDetected, UnreadableImage, ImageTooLarge, InvalidParameter
            As in `facecore.FaceEngine.sample`.
        GalleryLocked, GalleryNotWritable, GalleryCorrupt
            The face cannot be stored; nothing was changed.
        """
        check_choice(on_existing, "on_existing", OnExisting)
        check_choice(origin, "origin", Origin)
        check_choice(if_many, "if_many", IfMany)
        check_user_id(user_id)
        self._backend.group(check_name(group))  # fail before the models run
        sample = self.engine.sample(image, face=face)
        check_alone((sample.face, *sample.others), if_many)
        vector, quality = self.engine.embed(sample), self.engine.quality(sample).score
        if not twice and on_existing == "add":
            stored = self._same_picture(group, user_id, vector)
            if stored is not None:
                return replace(stored, others=len(sample.others), present=True)
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
        twice: bool = False,
    ) -> Iterator[FaceRecord | FacecoreError]:
        """Store the faces of many images in order, while reading the images.

        Quality is not measured, because the engine streams vectors only: `FaceRecord.quality` is
        None.

        Parameters
        ----------
        group : str
        items : iterable of (image, user_id)
            Read lazily.
        face : {"largest", "central"}
            Which face of an image to use.
        batch_size : int, default 32
            Faces per embedder run and per transaction.
        progress : bool, default False
            Show a progress bar on standard error.
        if_many : {"largest", "refuse"}
        twice : bool, default False
            As in `add`.

        Yields
        ------
        FaceRecord or FacecoreError
            A record once it is durable, with `FaceRecord.present` as in `add`; or the error of a
            bad image (no face, for example).  A bad image never ends the run.

        Raises
        ------
        GroupNotFound, InvalidParameter
            Immediately, for bad arguments.
        GalleryLocked, GalleryNotWritable, GalleryCorrupt
            From the iterator; records already yielded are stored.
        """
        batch_size = check_count(batch_size, "batch_size", 1)
        self._backend.group(check_name(group))
        pairs = enrolment.Pairs(items)
        vectors = self.engine.embed_many(pairs, batch_size, progress, face=face, if_many=if_many)
        known = None if twice else self._same_picture
        return enrolment.stored(self._backend, group, pairs, vectors, batch_size, known)

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
        """Store existing templates, for example from another gallery; all or none.

        Parameters
        ----------
        group : str
        vectors : array_like, shape (n, D), float32
            Unit length within 0.001; stored bit for bit.
        user_ids : sequence of str, n
        contract : str
            `FaceEngine.contract_id` of the engine that made the templates.
        face_ids : sequence of str, optional
            32 lower-case hexadecimal digits each; new ids by default.
        quality : sequence of float or None, optional
        origin : str or sequence of str
        created : datetime or sequence of datetime, optional
            With a time zone; now by default.

        Raises
        ------
        ContractMismatch
            The templates belong to another vector space.
        GroupNotFound
        InvalidParameter
            A shape, a length or a value is wrong, or a face id is already stored.
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
            raise InvalidParameter(
                f"{len(matrix)} vectors and {len(faces)} user_ids were given",
                "give one user_id per vector",
            )
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
        """Find the stored faces most similar to the face in an image, best first.

        Parameters
        ----------
        image : image or FaceSample
        groups : str or sequence of str, optional
            Groups to search; all groups by default.
        limit : int, default 5
            Maximum number of matches over all groups together.
        face : {"largest", "central"}
            Which face of the image to use.
        threshold : float, optional
            Minimum score, 0..100.  Without `threshold` and `far`, the best matches are returned
            at any score.
        far : float, optional
            False accept rate of the whole search, above 0 and below 1: the probability that a
            person in none of the groups matches anyone.  The threshold follows from it, the
            calibration and the number of faces compared.  See docs/galleries.md.
        id_portrait : bool, default False
            As in `facecore.FaceEngine.compare`: the image, or every stored face, is an ID portrait.
        per : {"face", "user"}
            Return every matching face, or each user once with the best face.

        Raises
        ------
        GroupNotFound
        InvalidParameter
            An argument is invalid, or `far` is below the calibration's range.
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
        """Compare the face in an image with a user's templates; the most similar one decides.

        More templates give an impostor more chances.  `Verification.score` corrects for the number
        of templates, so the same threshold keeps the same false accept rate.

        Parameters
        ----------
        image : image or FaceSample
        group, user_id : str
        face : {"largest", "central"}
            Which face of the image to use.
        threshold : float, optional
            Minimum score to pass, 0..100; the engine's threshold by default.
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
        records, templates = self._stored(_filter(group, user_id, None, None))
        if not records:
            raise RecordNotFound(f"the group {group} holds no face of the user {user_id}")
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
        """Identify each face in an image as a user or as unknown.

        Parameters
        ----------
        image : image or FaceSample
        groups : str or sequence of str, optional
            Groups to search; all groups by default.
        far : float, default 0.01
            As in `search`, per face.
        limit : int, default 5
            Candidates per face.
        once : bool, default True
            Assign a user to at most one face of the image, the most similar one.

        Returns
        -------
        list of Identification
            One per face, largest first.

        Raises
        ------
        GroupNotFound
        InvalidParameter
            An argument is invalid, or `far` is below the calibration's range.
        UnreadableImage, ImageTooLarge
            As in `facecore.FaceEngine.samples`.
        """
        check_far(far)
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
        threshold: float | None = None,
        different_users: bool = False,
        progress: bool = False,
    ) -> list[DuplicateSet[FaceRecord]]:
        """Find faces of one person within a group or across groups by comparing all pairs.

        Parameters
        ----------
        groups : str or sequence of str
            One group: compare all pairs in it.  Several: compare faces of different groups.
        far : float, default 0.001
            Probability, above 0 and below 1, of finding any pair of different people, over all
            pairs together.
        threshold : float, optional
            Minimum score of a pair, 0..100; by default, it follows from `far`.
        different_users : bool, default False
            Skip pairs of faces of one user.
        progress : bool, default False
            Show a progress bar on standard error.

        Raises
        ------
        GroupNotFound
        InvalidParameter
            An argument is invalid, or the rate per pair is below the calibration's range.
        """
        names = _group_names(groups)
        records, templates = self._stored(*map(Filter, names))
        labels: list[list[str]] = []
        if len(names) > 1:
            labels.append([record.group for record in records])
        if different_users:
            labels.append([record.user_id for record in records])
        return duplicate_sets(
            records,
            templates,
            self.engine.calibration,
            far,
            threshold=threshold,
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
        """Run `search` for many images, in order.

        Yields
        ------
        list of Match, or FacecoreError
            The error replaces the matches of an image that could not be embedded.
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
            Number of faces removed.

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
        """Return a record by face id; raises RecordNotFound."""
        return self._backend.record(check_face_id(face_id))

    def record_by_id(self, id: int) -> FaceRecord:
        """Return a record by `FaceRecord.id`; raises RecordNotFound."""
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
        """List at most `limit` matching records in order of id, starting at position `offset`.

        A filter of None matches every record.  An unknown group raises GroupNotFound.
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
        """Count the records that match; filters as in `records`."""
        return self._backend.count(_filter(group, user_id, face_id, origin))

    def known(self, face_ids: Iterable[str]) -> set[str]:
        """Return the subset of the ids that the gallery holds."""
        return self._backend.known([check_face_id(face_id) for face_id in face_ids])

    def templates(
        self, group: str | None = None, batch_size: int = 1000
    ) -> Iterator[tuple[list[FaceRecord], NDArray[np.float32]]]:
        """Iterate over all records and templates in order of id, in batches, for export.

        Yields
        ------
        list of FaceRecord, ndarray of shape (n, D), float32
            Each batch is a consistent snapshot; faces added meanwhile come last.
        """
        batch_size = check_count(batch_size, "batch_size", 1)
        if group is not None:
            self._backend.group(check_name(group))
        return self._backend.templates(Filter(group), batch_size)

    def users_groups(self, user_id: str) -> list[str]:
        """List the names of the groups that hold a user, oldest group first."""
        return self._backend.groups_of(check_user_id(user_id))

    def stats(self) -> GalleryStats:
        """Return the gallery's size and the state of its index."""
        return self._backend.stats()

    def warmup(self) -> None:
        """Build the index now, not at the first search.  Does nothing for Milvus.

        Raises
        ------
        GalleryCorrupt
            A template is damaged.
        """
        self._backend.warmup()

    def compact(self) -> None:
        """Check the database, free the space of removed faces and update the index.

        Needs up to twice the database's size on disk while it runs.
        """
        self._backend.compact()

    def _same_picture(
        self, group: str, user_id: str, vector: NDArray[np.float32]
    ) -> FaceRecord | None:
        records, templates = self._stored(Filter(group, user_id))
        if not records:
            return None
        same = np.flatnonzero(cosine(templates, vector[None]) > enrolment.SAME_PICTURE)
        return records[same[0]] if len(same) else None

    def _stored(self, *which: Filter) -> tuple[list[FaceRecord], NDArray[np.float32]]:
        """Return all records that match, and their templates, shape (n, D)."""
        batches = [batch for some in which for batch in self._backend.templates(some, 10_000)]
        records = [record for some, _ in batches for record in some]
        none = np.empty((0, self._contract.dimension), np.float32)
        return records, np.concatenate([none, *(vectors for _, vectors in batches)])

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
        return None if groups is None else _group_names(groups)

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
        hits, compared = self._hits(vector, groups, limit, per, count=far is not None)
        least = 0.0 if threshold is None else threshold
        if far is not None:
            least = score_threshold(table, far, compared)
        matches = []
        for hit in hits:
            score, face = float(table.score(hit.similarity)), hit.record
            if score >= least:
                matches.append(Match(face.face_id, face.user_id, face.group, score, hit.similarity))
        return matches

    def _hits(
        self,
        vector: NDArray[np.float32],
        groups: list[str] | None,
        limit: int,
        per: Per,
        *,
        count: bool,
    ) -> tuple[list[Hit], int]:
        """Return the hits and, with `count`, the number of faces compared in the same snapshot."""
        if per == "face":
            return self._backend.search(vector, groups, limit, count=count)
        most = max(limit, self._backend.most_hits)
        faces = min(4 * limit, most)
        while True:  # fetch more faces until there are enough users
            hits, compared = self._backend.search(vector, groups, faces, count=count)
            users: dict[str, Hit] = {}
            for hit in hits:
                users.setdefault(hit.record.user_id, hit)
            if len(users) >= limit or len(hits) < faces or faces == most:
                return list(users.values())[:limit], compared
            faces = min(4 * faces, most)


def _group_names(groups: str | Sequence[str]) -> list[str]:
    if not isinstance(groups, Iterable):
        raise InvalidParameter(f"groups is {groups!r:.80}", "give a name, or a list of names")
    names = [groups] if isinstance(groups, str) else groups
    return list(dict.fromkeys(check_name(name) for name in names))


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
    address: str,
    contract: Contract,
    index: IndexChoice,
    read_only: bool,
    progress: bool,
    key: bytes | None,
) -> Backend:
    if is_milvus(address):
        if key is not None:
            raise InvalidParameter(
                "a Milvus gallery takes no key", "encrypt the disk on which Milvus keeps its data"
            )
        from facecore.gallery.milvus.backend import MilvusBackend

        return MilvusBackend(address, contract, index=index, read_only=read_only)
    if scheme := re.match(r"([a-z][a-z0-9+.-]+)://", address):
        raise InvalidParameter(
            f"{scheme[1]} galleries are not supported", f"give a folder, or {EXAMPLE}"
        )
    from facecore.gallery.sqlite.backend import SqliteBackend

    return SqliteBackend(
        Path(address), contract, index=index, read_only=read_only, progress=progress, key=key
    )
