"""The `far` of a search is the rate at which strangers match anybody."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from templates import template, unit

from facecore import FaceEngine, Gallery, InvalidParameter
from facecore.evaluation.vectors import embed_all
from facecore.gallery.thresholds import per_comparison, score_threshold


@given(st.floats(1e-6, 0.999), st.integers(1, 10**7))
def test_the_rate_per_comparison(far: float, count: int) -> None:
    rate = per_comparison(far, count)
    assert 0 < rate <= far * (1 + 1e-12)
    assert -np.expm1(count * np.log1p(-rate)) == pytest.approx(far, rel=1e-9)
    assert far / count <= rate * (1 + 1e-12)  # by Bonferroni's inequality


def test_the_threshold_rises_with_the_gallery(templates_engine: Any) -> None:
    table = templates_engine.calibration
    scores = [score_threshold(table, 0.01, count) for count in (1, 10, 100, 1000)]
    assert scores[0] == 70
    assert np.all(np.diff(scores) > 0)
    assert scores[2] == pytest.approx(90, abs=0.1)  # 1 % over 100 faces is 0.01 % per face
    assert table.is_extrapolated(scores[3])
    with pytest.raises(
        InvalidParameter, match=r"far 1e-09 over 1,000,000 comparisons is 1e-15 for"
    ):
        score_threshold(table, 1e-9, 1_000_000)


def test_a_search_takes_the_threshold_of_its_groups(filled: Gallery) -> None:
    """The same two faces match in a small group but not in a large one."""
    table, probe = filled.engine.calibration, template("probe")
    wanted = float(table.similarity(table.threshold(0.001))) + 0.01
    other = unit(template("other") - (template("other") @ probe) * probe)
    near = unit(wanted * probe + np.sqrt(1 - wanted**2) * other)
    crowd = np.stack([template(f"t{i}") for i in range(300)])
    contract = filled.contract_id
    filled.add_templates("staff", near[None], ["near"], contract=contract)
    filled.add_templates("visitors", crowd, ["crowd"] * 300, contract=contract)
    assert [m.user_id for m in filled.search(probe, "staff", far=0.001)] == ["near"]
    assert filled.search(probe, far=0.001) == []
    assert [m.user_id for m in filled.search(probe, threshold=80, limit=1)] == ["near"]
    assert filled.search(probe, threshold=100) == []
    assert filled.search(probe, [], far=0.001) == []
    filled.create_group("empty")
    assert filled.search(probe, "empty", far=0.001) == []


def test_strangers_of_lfw(engine: FaceEngine, lfw_folder: Path, folder: Path) -> None:
    """One picture of each person: 200 form the gallery, 300 are probes."""
    people = sorted(path for path in (lfw_folder / "images").iterdir() if path.is_dir())
    some = np.random.default_rng(1).permutation(len(people))[:500]
    found = embed_all(engine, [sorted(people[i].iterdir())[0] for i in some], "central")
    vectors = found.vectors[found.found]
    with Gallery(folder, engine) as gallery:
        gallery.create_group("g")
        users = [str(i) for i in range(200)]
        gallery.add_templates("g", vectors[:200], users, contract=engine.contract_id)
        for far in (0.3, 0.1):
            least = score_threshold(engine.calibration, far, 200)
            table = engine.calibration
            hits = [gallery._matches(v, None, 1, None, far, table) for v in vectors[200:]]
            rate = np.mean([bool(matches) for matches in hits])
            assert all(match.score >= least for matches in hits for match in matches)
            # Impostor pairs of LFW are less similar than those that the table was measured on.
            assert far / 40 <= rate <= far * 1.6, (far, rate)
