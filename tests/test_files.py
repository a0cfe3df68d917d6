import os
import shutil

import pytest

from melody_diffusers.files import put_in_place


def write(folder, text):
    folder.mkdir()
    (folder / "file").write_text(text)
    return folder


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_takes_the_place_of_another(tmp_path):
    put_in_place(write(tmp_path / "one", "1"), tmp_path / "place")
    put_in_place(write(tmp_path / "two", "2"), tmp_path / "place")
    assert (tmp_path / "place" / "file").read_text() == "2" and names(tmp_path) == ["place"]


def test_what_was_there_comes_back_if_the_new_cannot_be_moved(tmp_path, monkeypatch):
    new, place, replace = write(tmp_path / "new", "2"), write(tmp_path / "place", "1"), os.replace

    def refuse(source, target):
        if source == new:
            raise OSError("disk trouble")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="disk trouble"):
        put_in_place(new, place)
    assert (place / "file").read_text() == "1" and (new / "file").read_text() == "2"


def test_what_cannot_be_removed_costs_nothing(tmp_path, monkeypatch):
    """Half removed, say, because somebody else owns a file: the new folder is in its place all the same."""
    new, place = write(tmp_path / "new", "2"), write(tmp_path / "place", "1")
    monkeypatch.setattr(shutil, "rmtree", lambda folder, ignore_errors: None)
    put_in_place(new, place)
    assert (place / "file").read_text() == "2" and len(names(tmp_path)) == 2
