"""Detector training: labels turn with the picture, and target cells decode to the labels."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from facecore.face.decoders import yunet

sys.path.insert(0, str(Path(__file__).parents[2] / "weights" / "training"))
assignment = pytest.importorskip("assignment")
SIDE = assignment.SIDE

Array = np.ndarray[Any, Any]


def label(x: float, y: float, width: float, height: float) -> Array:
    points = [(0.3, 0.4), (0.7, 0.4), (0.5, 0.6), (0.35, 0.8), (0.65, 0.8)]
    corner = np.array([x - width / 2, y - height / 2])
    marks = corner + np.array(points) * (width, height)
    far = (corner[0] + width, corner[1] + height)
    return np.array([assignment.FACE, *corner, *far, *marks.ravel()])


def decoded(targets: Array) -> tuple[Array, Array]:
    """Decode the targets as if a network had answered them."""
    heads, start = [], 0
    for stride in (8, 16, 32):
        cells = (SIDE // stride) ** 2
        heads.append(targets[start : start + cells].astype(np.float32))
        start += cells
    parts = [slice(0, 1), slice(0, 1), slice(2, 6), slice(6, 16)]
    outputs = [head[None, :, part] for part in parts for head in heads]
    return yunet(outputs, (SIDE, SIDE), (8, 16, 32), 0.5)


@pytest.mark.parametrize("size", [28, 50, 120, 300])
@pytest.mark.parametrize("seed", range(8))
def test_every_cell_that_is_asked_answers_the_label(size: float, seed: int) -> None:
    rows = label(120, 131, 0.9 * size, size)[None].astype(np.float32)
    picture = np.zeros((SIDE, SIDE, 3), np.uint8)
    _, moved = assignment.placed(picture, rows, np.random.default_rng(seed))
    targets = assignment.targets_of(moved)
    points, scores = decoded(targets)
    assert len(scores) > 0
    for found in points.reshape(-1, 14):
        np.testing.assert_allclose(found, moved[0, 1:], atol=0.05)
    assert (targets[:, 0] == -1).any()
    assert (targets[:, 0] == 0).sum() > 500


def test_the_landmarks_move_with_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assignment, "FRAMED", 0.0)  # framing would blur the colours
    rows = label(90, 140, 60, 80)[None].astype(np.float32)
    picture = np.zeros((SIDE, SIDE, 3), np.uint8)
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255)]
    for (x, y), colour in zip(rows[0, 5:].reshape(5, 2), colours, strict=True):
        cv2.circle(picture, (round(x), round(y)), 2, colour, -1)
    mirrored = 0
    for seed in range(20):
        turned, moved = assignment.placed(picture, rows, np.random.default_rng(seed))
        marks = np.round(moved[0, 5:].reshape(5, 2)).astype(int)
        seen = [tuple(int(v) for v in turned[y, x]) for x, y in marks]
        if seen != colours:  # mirrored: left and right are swapped
            mirrored += 1
            assert seen == [colours[k] for k in (1, 0, 2, 4, 3)]
        across, down = marks[1] - marks[0], marks[3:].mean(0) - marks[:2].mean(0)
        assert across[0] * down[1] - across[1] * down[0] > 0  # a face, not its mirror image
    assert 3 < mirrored < 17


def test_a_frame_as_in_the_wide_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assignment, "FRAMED", 1.0)
    rows = np.stack([label(128, 128, 60, 80), label(40, 40, 15, 20)]).astype(np.float32)
    picture = np.full((SIDE, SIDE, 3), 200, np.uint8)
    framed, moved = assignment.placed(picture, rows, np.random.default_rng(1))
    assert framed.shape == picture.shape
    assert (framed[:, :, 0] == 0).mean() == 0.75
    assert moved[:, 0].tolist() == [assignment.FACE, assignment.IGNORED]  # 9 pixels
    np.testing.assert_allclose(np.sort(moved[0, 3:5] - moved[0, 1:3]), [30, 40], atol=0.01)


def test_faces_that_do_not_count_are_not_asked() -> None:
    rows = label(128, 128, 60, 80)[None].astype(np.float32)
    rows[0, 0] = assignment.IGNORED
    targets = assignment.targets_of(rows)
    assert not (targets[:, 0] > 0).any()
    assert (targets[:, 0] == -1).sum() > 60
    assert not assignment.targets_of(rows[:0]).any()


def answers(rows: Array, logit: float) -> Array:
    """Return teacher answers that show every face of `rows` with a probability of `logit`."""
    said = np.zeros((assignment.CELLS, 16), np.float32)
    said[:, :2] = -9.0
    targets = assignment.targets_of(rows)
    here = targets[:, 0] > 0
    said[here, :2], said[here, 2:] = logit, targets[here, 2:]
    return said


def asked_of(said: Array, rows: Array) -> dict[str, Array]:
    """Return the `Targets` of one scene without the batch axis."""
    wanted = assignment.targets(said[None], [rows.astype(np.float32)])
    return {name: value[0] for name, value in vars(wanted).items()}


def test_what_teacher_and_label_both_see_keeps_its_probability_and_takes_the_label() -> None:
    rows = label(128, 128, 60, 80)[None].astype(np.float32)
    moved = rows.copy()
    moved[0, 1:] += 5.0
    wanted = asked_of(answers(moved, 1.0), rows)
    here = wanted["face"] > 0
    assert here.sum() > 3
    np.testing.assert_allclose(wanted["odds"][here], 1 / (1 + np.exp(-1)), atol=1e-5)
    heads = np.column_stack([here, wanted["scale"][:, 0], wanted["place"]])
    for found in decoded(heads)[0].reshape(-1, 14):
        np.testing.assert_allclose(found, rows[0, 1:], atol=0.05)


def test_what_only_the_teacher_sees_is_no_face() -> None:
    rows = label(128, 128, 60, 80)[None].astype(np.float32)
    wanted = asked_of(answers(rows, 2.0), rows[:0])
    assert (wanted["odds"] < 0.01).all()
    assert not wanted["face"].any()
    assert (wanted["notice"] > 0.8).sum() > 3  # these cells still count in the loss
    assert wanted["asked"].all()


def test_what_only_the_label_sees_is_a_face() -> None:
    rows = label(128, 128, 60, 80)[None].astype(np.float32)
    rows[0, 5:] = np.nan  # labelled by eye, without landmarks
    wanted = asked_of(answers(rows[:0], 0.0), rows)
    here = wanted["face"] > 0
    assert here.sum() > 3
    assert (wanted["odds"][here] == np.float32(assignment.SURE)).all()
    assert not wanted["scale"][here, 4:].any()
    assert (wanted["scale"][here, :4] > 0).all()
    assert all(np.isfinite(value).all() for value in wanted.values())


def test_what_does_not_count_is_not_asked_even_where_the_teacher_sees_it() -> None:
    rows = label(128, 128, 60, 80)[None].astype(np.float32)
    rows[0, 0] = assignment.IGNORED
    shown = rows.copy()
    shown[0, 0] = assignment.FACE
    wanted = asked_of(answers(shown, 2.0), rows)
    assert not wanted["asked"][answers(shown, 2.0)[:, 0] > 0].any()
    assert wanted["asked"].sum() > 500


def test_without_labels_the_teacher_is_right() -> None:
    rows = label(128, 128, 60, 80)[None].astype(np.float32)
    wanted = assignment.targets(answers(rows, 2.0)[None], None)
    assert wanted.asked.all()
    assert (wanted.face > 0.8).sum() > 3
