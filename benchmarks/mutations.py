"""Mutation testing: do the tests of the operations detect single code changes?

python -m benchmarks mutations [--only NUMBER ...] [--jobs N]

Applies each mutation to a copy of the package and runs the tests until the first failure.  A
mutation that no test detects is a gap in the tests; the script then exits with status 1.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
OPERATIONS = "facecore/operations"


@dataclass(frozen=True)
class Mutation:
    """Replacement of `old`, which occurs once in the file, by `new`.

    `test` runs first; if it passes, all tests run.
    """

    test: str
    what: str
    file: str
    old: str
    new: str


def _m(test: str, what: str, file: str, old: str, new: str) -> Mutation:
    return Mutation(test, what, f"{file}.py", old, new)


MUTATIONS = [
    # Flags
    _m("decisions::test_decision",
       "AutoRegistration not inverted", "duplication_check",
       'values["AutoRegistration"] == "0"', 'values["AutoRegistration"] == "1"'),
    _m("typed_operations::test_duplication_check",
       "typed: auto_register inverted once more", "typed_operations",
       '"0" if auto_register else "1"', '"1" if auto_register else "0"'),
    _m("decisions::test_decision",
       "Liveness=0 checks liveness", "duplication_check",
       'if values["Liveness"] == "1" else None', 'if values["Liveness"] == "0" else None'),
    _m("decisions::test_a_user_who_is_there_already",
       "UpdateFaceIfUserExists flipped", "duplication_check",
       '"replace" if replaces else "refuse"', '"refuse" if replaces else "replace"'),
    _m("scores::test_triples",
       "CompareModel 0 and 1 swapped", "cross_compare",
       'values["CompareModel"] == "1"', 'values["CompareModel"] == "0"'),
    _m("decisions::test_decision",
       "FaceAttack flipped", "duplication_check",
       '"Y" if self.is_attack else "N"', '"N" if self.is_attack else "Y"'),
    _m("decisions::test_decision",
       "FaceRegistrationResult as text", "duplication_check",
       "1 if self.registered else 0", '"1" if self.registered else "0"'),
    _m("decisions::test_quality_scores",
       "FaceQualityCheck=N gives scores", "face_compare",
       'values["FaceQualityCheck"] == "Y"', 'values["FaceQualityCheck"] == "N"'),
    # Defaults
    _m("limits::test_size_of_a_picture",
       "AutoRegistration defaults to 0", "tables",
       'Parameter("AutoRegistration", default="1"', 'Parameter("AutoRegistration", default="0"'),
    _m("decisions::test_the_best_duplicates_over_all_groups",
       "ReturnFaces defaults to 5", "tables",
       'Parameter("ReturnFaces", default="1"', 'Parameter("ReturnFaces", default="5"'),
    _m("decisions::test_envelope",
       "Liveness defaults to 1", "tables",
       'Parameter("Liveness", default="0"', 'Parameter("Liveness", default="1"'),
    _m("decisions::test_envelope",
       "CompareModel defaults to 1", "tables",
       'Parameter("CompareModel", default="0"', 'Parameter("CompareModel", default="1"'),
    _m("decisions::test_a_user_who_is_there_already",
       "UpdateFaceIfUserExists defaults to Y", "tables",
       'Parameter("UpdateFaceIfUserExists", default="N"',
       'Parameter("UpdateFaceIfUserExists", default="Y"'),
    _m("faults::test_settings_have_the_documented_defaults",
       "private addresses allowed by default", "config",
       "allow_private_addresses: bool = False", "allow_private_addresses: bool = True"),
    # Tables
    _m("limits::test_biz_id",
       "MerchantBizId optional in FaceCompare", "tables",
       'FACE_COMPARE = (\n    Parameter("MerchantBizId", required=True',
       'FACE_COMPARE = (\n    Parameter("MerchantBizId", required=False'),
    _m("limits::test_duplication_check",
       "FaceVerifyThreshold checked", "tables",
       'Parameter("SaveFacePicture", ignored=True),\n    Parameter("FaceVerifyThreshold", '
       "ignored=True)",
       'Parameter("SaveFacePicture", ignored=True),\n    Parameter("FaceVerifyThreshold", '
       'pattern="0[.][0-9]+")'),
    _m("limits::test_duplication_check",
       "Target required in a search", "tables",
       '"TargetFacePictureUrl", when=_VERIFIES)', '"TargetFacePictureUrl")'),
    _m("limits::test_duplication_check",
       "FaceGroupCodes required in a verification", "tables",
       'Parameter("FaceGroupCodes", required=True, when=_SEARCHES,',
       'Parameter("FaceGroupCodes", required=True,'),
    _m("limits::test_duplication_check",
       "ReturnFaces up to 4", "tables", '("1", "2", "3", "4", "5")', '("1", "2", "3", "4")'),
    _m("limits::test_user_id_of_a_record",
       "MerchantUserId of 33 characters enrolled", "tables", 'pattern=".{1,32}"',
       'pattern=".{1,33}"'),
    _m("limits::test_biz_id",
       "MerchantBizId of 33 characters", "tables", '"[A-Za-z0-9]{1,32}"', '"[A-Za-z0-9]{1,33}"'),
    _m("limits::test_group_codes",
       "11 group codes", "duplication_check", "_MOST_GROUPS = 10", "_MOST_GROUPS = 11"),
    # Limits
    _m("limits::test_size_of_a_picture",
       "one byte less than 1 MiB", "pictures",
       "len(data) > rules.max_bytes", "len(data) >= rules.max_bytes"),
    _m("limits::test_size_of_a_picture",
       "one character less of base64", "pictures",
       "len(given.value) > rules.max_text", "len(given.value) >= rules.max_text"),
    _m("limits::test_resolution",
       "height and width swapped", "pictures", "least=(640, 480)", "least=(480, 640)"),
    _m("limits::test_resolution",
       "1920x1080 itself refused", "pictures",
       "least[0] <= height <= most[0]", "least[0] <= height < most[0]"),
    _m("limits::test_picture_to_enrol",
       "PNG enrolled", "pictures",
       'formats=("JPEG",),\n    max_bytes=10 * _MIB', 'formats=("JPEG", "PNG"),\n'
       "    max_bytes=10 * _MIB"),
    _m("limits::test_base64_in_every_form",
       "a space is dropped, not a plus", "pictures", '.replace(" ", "+")', '.replace(" ", "")'),
    # Order
    _m("precedence::test_two_violations",
       "InvalidParameter before MissingParameter", "parameters",
       "            used.append(row)\n",
       '            used.append(row)\n            if found[row.name] != "":\n'
       "                row.check(found[row.name])\n"),
    _m("precedence::test_two_violations",
       "download before DataDuplication", "pictures",
       "if len(given) > 1:", "if len(given) > 1 and _fetched(given[0], rules, config):"),
    _m("decisions::test_decision",
       "204 before 205", "duplication_check",
       "if liveness is not None and liveness.is_attack:",
       "if liveness is not None and liveness.is_attack and (compared is None or compared.passed):"),
    _m("decisions::test_decision",
       "233 before 204", "duplication_check",
       "elif compared is not None and not compared.passed:",
       "elif compared is not None and not compared.passed and not matches:"),
    _m("faults::test_a_gate_answers_with_every_code_of_an_operation",
       "the gate after the operation", "service",
       "            if self.config.gate is not None:\n                self.config.gate(name)\n"
       "            context = self._context if groups is None else "
       "replace(self._context, allowed=groups)\n"
       "            return run(context, params)",
       "            found = run(self._context, params)\n"
       "            if self.config.gate is not None:\n"
       "                self.config.gate(name)\n            return found"),
    _m("precedence::test_compare_faces",
       "two IDPic compared", "compare_faces",
       "if len(portraits) == 2:", "if len(portraits) == 3:"),
    # Fields
    _m("decisions::test_envelope",
       "C2A in a chain", "cross_compare",
       "None if found.ca is None else _score(found.ca)",
       "_score(found.ab) if found.ca is None else _score(found.ca)"),
    _m("decisions::test_envelope",
       "no TransactionId", "face_compare",
       '            "TransactionId": self.transaction_id,\n', ""),
    _m("scores::test_triples",
       "cross scores 0..100", "cross_compare",
       "return min(max(pair.similarity, 0.0), 1.0)", "return pair.score"),
    _m("scores::test_pairs",
       "thresholds as numbers", "compare_faces", 'f"{t:.2f}"', "t"),
    _m("decisions::test_decision",
       "FaceComparisonScore as a number", "duplication_check",
       'result["FaceComparisonScore"] = str(self.score)',
       'result["FaceComparisonScore"] = self.score'),
    _m("decisions::test_decision",
       "DuplicateFace as a list", "duplication_check",
       'result["DuplicateFace"] = _duplicates(self.duplicates)',
       'result["DuplicateFace"] = json.loads(_duplicates(self.duplicates))'),
    _m("faults::test_a_gate_answers_with_every_code_of_an_operation",
       "HostId missing", "service", '        "HostId": "facecore",\n', ""),
    _m("limits::test_picture_to_compare",
       "success of CompareFaces is Success", "compare_faces", '            "Code": "1",\n', ""),
    # Decisions
    _m("limits::test_duplication_check",
       "a verification registers", "tables",
       'Parameter("AutoRegistration", default="1", allowed=("0", "1"), when=_SEARCHES)',
       'Parameter("AutoRegistration", default="1", allowed=("0", "1"))'),
    _m("decisions::test_decision",
       "registers after 233", "duplication_check",
       "attempted = registers and sub_code == PASSED",
       "attempted = registers and sub_code != ATTACK"),
    _m("decisions::test_decision",
       "origin of a registration", "duplication_check", 'origin="AUTO"', 'origin="MANUAL"'),
    _m("scores::test_how_strict_a_search_is",
       "the search ignores the threshold", "duplication_check",
       "if match.score >= least", "if match.score >= 0"),
    _m("scores::test_how_strict_a_search_is",
       "the search ignores search_far", "duplication_check",
       "far=config.search_far", "far=0.5"),
    _m("threads::test_a_face_is_registered_once",
       "no lock around search and registration", "duplication_check",
       "with context.registering if registers else nullcontext():", "with nullcontext():"),
    _m("scores::test_id_portraits_have_a_table_of_their_own",
       "IDPic scored as a photograph", "compare_faces",
       "id_portrait=bool(portraits))", "id_portrait=False)"),
    _m("decisions::test_a_user_is_stored_once_a_group",
       "AddFaceRecord adds a second face", "add_face_record",
       'on_existing="refuse"', 'on_existing="add"'),
    _m("faults::test_the_codes_are_the_documents",
       "throttling is 429", "codes", 'Code("Throttling.Api", 403', 'Code("Throttling.Api", 429'),
    _m("faults::test_the_codes_are_the_documents",
       "a missing value is 400", "codes",
       'Code("InvalidParam.ParamMissing", 403', 'Code("InvalidParam.ParamMissing", 400'),
    _m("limits::test_picture_to_compare",
       "a failed download is 400", "pictures",
       "download=COMPARE_FACES_ERROR", "download=IMAGE_VALUE_PATTERN_ERROR"),
    _m("faults::test_what_nobody_foresaw",
       "the error's reason leaks", "service",
       "raise OperationError(failed) from error",
       "raise OperationError(failed, str(error)) from error"),
    _m("groups::test_delete_a_user",
       "DeletedGroupCodes only the first", "groups",
       '",".join(deleted)', '",".join(deleted[:1])'),
    _m("groups::test_query_records",
       "pages from 0", "groups",
       "context.gallery.records(group, (page - 1) * size",
       "context.gallery.records(group, page * size"),
]  # fmt: skip


def main() -> int:
    """Apply each mutation, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", type=int, nargs="*", help="numbers of mutations")
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    chosen = [(n, m) for n, m in enumerate(MUTATIONS, 1) if not options.only or n in options.only]
    with ThreadPoolExecutor(options.jobs) as pool:
        caught = list(pool.map(lambda pair: _try(*pair), chosen))
    print(f"{sum(caught)} of {len(caught)} mutations are caught")
    return 0 if all(caught) else 1


def _try(number: int, mutation: Mutation) -> bool:
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        shutil.copytree(REPO / "facecore", root / "facecore")
        for part in ("weights", "tests", "pyproject.toml"):
            (root / part).symlink_to(REPO / part)
        file = root / OPERATIONS / mutation.file
        source = file.read_text(encoding="utf-8")
        if (places := source.count(mutation.old)) != 1:
            raise SystemExit(f"{number}, {mutation.what}: the place occurs {places} times")
        file.write_text(source.replace(mutation.old, mutation.new), encoding="utf-8")
        name, _, function = mutation.test.partition("::")
        run = _run(root, f"tests/operations/test_service_{name}.py::{function}")
        if run.returncode == 0:
            run = _run(root, "tests/operations")
    failed = [line for line in run.stdout.splitlines() if line.startswith(("FAILED", "ERROR t"))]
    caught = run.returncode == 1 and bool(failed)
    first = failed[0].split("::")[-1].split(" - ")[0] if failed else run.stdout[-200:]
    took = time.monotonic() - started
    verdict = "caught  " if caught else "SURVIVED"
    print(f"{number:3} {verdict} {took:5.0f} s  {mutation.what:45} {first}", flush=True)
    return caught


def _run(root: Path, tests: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", tests],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )


if __name__ == "__main__":
    raise SystemExit(main())
