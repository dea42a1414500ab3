"""Ctrl-C at any moment of a change leaves the gallery usable."""

from __future__ import annotations

import threading

import pytest
from interrupts import interrupted
from templates import template

from facecore import Gallery
from facecore.gallery.sqlite import connection, store

pytestmark = pytest.mark.usefixtures("no_sync")


def test_an_interrupted_change_does_not_block_later_ones(filled: Gallery) -> None:
    vector = template("a")[None]

    def change() -> None:
        filled.add_templates("staff", vector, ["a"], contract=filled.contract_id)

    for _ in interrupted(change, store, connection):
        other = threading.Thread(target=change, daemon=True)
        before = len(filled)
        other.start()
        other.join(30)
        assert not other.is_alive()
        assert len(filled) == before + 1


def test_an_interrupted_transaction_is_rolled_back(filled: Gallery) -> None:
    writer = filled._backend._store._writer  # type: ignore[attr-defined]

    def change() -> None:
        with connection.changing(writer):
            writer.execute("UPDATE groups SET title = 'x'")

    for _ in interrupted(change, connection):
        assert not writer.in_transaction
