"""The files of the state folder."""

from __future__ import annotations

import os

import pytest

from emulator import store
from emulator.store import StateInUse, Store


def test_an_interrupted_write_leaves_the_old_document(tmp_path, monkeypatch):
    documents = Store(tmp_path)
    documents.write("a/b.json", {"number": 1})

    def cut(_: int) -> None:
        raise OSError("no power")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", cut)
        with pytest.raises(OSError, match="no power"):
            documents.write("a/b.json", {"number": 2})
    assert documents.read("a/b.json") == {"number": 1}
    assert list(documents.documents("a")) == [{"number": 1}]
    documents.write("a/b.json", {"number": 3})
    documents.delete("a/c.json")
    assert documents.read("a/b.json") == {"number": 3}
    documents.delete("a/b.json")
    assert documents.read("a/b.json") is None


def test_a_document_is_on_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    calls: list[str] = []
    sync, rename = os.fsync, os.replace

    def noted_sync(descriptor: int) -> None:
        calls.append("sync")
        sync(descriptor)

    def noted_rename(source: str, target: str) -> None:
        calls.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(os, "replace", noted_rename)
    Store(tmp_path).write("a.json", {})
    assert calls == ["sync", "rename", "sync"]


def test_a_folder_is_locked_once(tmp_path):
    held = store.lock(tmp_path)
    with pytest.raises(StateInUse):
        store.lock(tmp_path)
    os.close(held)
    os.close(store.lock(tmp_path))
