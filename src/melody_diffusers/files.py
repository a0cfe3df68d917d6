"""Folders that are there whole or not at all."""

import contextlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

MOVING = ".being-replaced"
"""A folder of this name lies in one whose files are being replaced, for the milliseconds that takes."""


@contextlib.contextmanager
def all_or_nothing(place: Path, is_outdated: Callable[[Path], bool]) -> Iterator[Path]:
    """A new folder to write files to, which at the end take their places in the folder `place`, all of them or none.

    Whatever else lies in `place` stays there, except the files of the new ones' folders that `is_outdated` names. When
    anything fails, `place` is as it was. A process that is killed while files take their places leaves the folder
    `MOVING` behind, with those that were there before.

    Raises:
        OSError: the files cannot be written.
    """
    is_new = not place.exists()
    place.mkdir(parents=True, exist_ok=True)
    new, old = place / f".being-written-{uuid.uuid4().hex[:8]}", place / MOVING
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
        moved: list[tuple[Path, Path]] = []

        def move(source: Path, target: Path) -> None:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.rename(source, target)
            moved.append((source, target))

        try:
            for file in [*files, *outdated]:
                if os.path.lexists(place / file):
                    move(place / file, old / file)
            for file in files:
                move(new / file, place / file)
        except BaseException:
            for source, target in reversed(moved):
                os.rename(target, source)
            raise
        finally:
            shutil.rmtree(old, ignore_errors=True)
        is_new = False
    finally:
        shutil.rmtree(new, ignore_errors=True)
        if is_new:
            with contextlib.suppress(OSError):
                place.rmdir()  # which was made for nothing


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
