"""Requests that make no sense always get a documented code, never a server error."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from operations.base import BASE
from operations.cases import Requests
from operations.test_operation_pages import TABLES

from facecore import FaceEngine, Gallery
from facecore.operations import DOCUMENTED, FaceService, ServiceConfig
from facecore.operations.parameters import Parameter

NAMES = sorted(
    {
        name
        for rows in TABLES.values()
        for row in rows
        for name in ((row.name,) if isinstance(row, Parameter) else (row.text, row.url, *row.files))
        if name
    }
)


@pytest.fixture(scope="module")
def small(engine: FaceEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaceService]:
    with Gallery(tmp_path_factory.mktemp("fuzz") / "gallery", engine) as gallery:
        gallery.create_group("g1")
        yield FaceService(engine, gallery, ServiceConfig(download_timeout=0.2))


def _values(requests: Requests) -> st.SearchStrategy[Any]:
    good = [value for base in BASE.values() for value in requests.build(base).values()]
    pictures = ["@not_an_image", "@lowres", "base64://@not_an_image", "@noface"]
    return st.one_of(
        st.sampled_from([*good, *requests.build(dict(enumerate(pictures))).values()]),  # type: ignore[arg-type]
        st.sampled_from([None, "", "0", "1", "2", "Y", "N", "g1", "nope", ",", "http://", "IDPic"]),
        st.sampled_from(["http://127.0.0.1/a.jpg", "http://[::1]/", "file:///etc/passwd"]),
        st.text(max_size=20),
        st.integers(),
        st.floats(),
        st.booleans(),
        st.binary(max_size=20),
        st.lists(st.integers(), max_size=3),
    )


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_always_a_documented_code(
    data: st.DataObject, small: FaceService, requests: Requests
) -> None:
    name = data.draw(st.sampled_from(sorted(BASE)))
    changes = data.draw(st.dictionaries(st.sampled_from(NAMES), _values(requests), max_size=4))
    dropped = data.draw(st.sets(st.sampled_from(sorted(BASE[name])), max_size=1))
    request = {**requests.build(BASE[name]), **changes}
    response = small.call(name, {key: request[key] for key in request.keys() - dropped})
    if response.status == 200:
        assert response.body["Code"] in ("Success", "1")
    else:
        assert response.status < 500
        known = {code.name: code.status for code in DOCUMENTED[name]}
        assert response.status == known[response.body["Code"]]
        assert response.body.keys() == {"RequestId", "HostId", "Code", "Message"}
        assert len(response.body["Message"]) < 1000
