"""Folders that are there whole or not at all."""

import contextlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

MOVING = ".being-replaced"
"""A folder of this name lies in one whose files are being replaced, for the milliseconds that takes."""

WRITING = ".being-written-"
"""The names of folders with what is not complete yet begin with this."""


@contextlib.contextmanager
def all_or_nothing(place: Path, is_outdated: Callable[[Path], bool] = lambda file: False) -> Iterator[Path]:
    """A new folder to write files to, which at the end take their places in the folder `place`, all of them or none.

    Whatever else lies in `place` stays there, except the files of the new ones' folders that `is_outdated` names. When
    anything fails, `place` is as it was. A process that is killed while files take their places leaves the folder
    `MOVING` behind, with those that were there before. What is replaced is moved and then removed, never written to:
    a process that has it mapped can go on.

    Raises:
        OSError: the files cannot be written, or there is a folder in the place of one.
    """
    made = [each for each in (place, *place.parents) if not each.exists()]
    place.mkdir(parents=True, exist_ok=True)
    new, old = place / f"{WRITING}{uuid.uuid4().hex[:8]}", place / MOVING
    try:
        yield new
        if not new.is_dir():
            return
        if old.exists():  # another process was killed there: this one makes all of it anew
            shutil.rmtree(old)
        files = [path.relative_to(new) for path in sorted(new.rglob("*")) if not path.is_dir()]
        outdated = [
            path.relative_to(place)
            for folder in sorted({place / file.parent for file in files})
            if folder.is_dir()
            for path in folder.iterdir()
            if path.is_file() and is_outdated(path) and path.relative_to(place) not in files
        ]
        moves = [(place / file, old / file) for file in [*files, *outdated] if os.path.lexists(place / file)]
        for file in files:
            if (place / file).is_dir():
                raise IsADirectoryError(f"{place / file} is a folder, and a file is to be there. Move it away.")
            made[:0] = [each for each in (place / file).parents if not each.exists() and each not in made]
        _move_all(moves + [(new / file, place / file) for file in files], old)
        made = []
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(new, ignore_errors=True)
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()  # which was made for nothing


def _move_all(moves: list[tuple[Path, Path]], old: Path) -> None:
    """Move files one after the other, to another disk where a folder is a link to one; if one fails, all go back."""
    begun = []
    try:
        for source, target in moves:
            target.parent.mkdir(parents=True, exist_ok=True)
            begun.append((source, target))
            shutil.move(source, target)
    except BaseException:
        for source, target in reversed(begun):
            if not os.path.lexists(source):
                shutil.move(target, source)
            elif os.path.lexists(target):
                target.unlink()  # a copy on another disk, which may not be complete
        shutil.rmtree(old, ignore_errors=True)  # not where a second interrupt kept files from going back
        raise


def put_in_place(new: Path, place: Path) -> None:
    """Rename the folder `new` to `place`. A folder that is there already is replaced, and never lost.

    It is moved aside before, back if anything fails, and removed last.

    Raises:
        OSError: `place` could not be replaced, and is as it was; `new` is still there, and named.
    """
    aside = place.with_name(f".old-{place.name}-{uuid.uuid4().hex[:8]}") if place.exists() else None
    try:
        if aside is not None:
            os.replace(place, aside)
        try:
            os.replace(new, place)
        except OSError:
            if aside is not None:
                os.replace(aside, place)
            raise
    except OSError as error:
        raise OSError(f"{new} is complete, but could not be renamed to {place}: {error}") from error
    if aside is not None:
        shutil.rmtree(aside, ignore_errors=True)
