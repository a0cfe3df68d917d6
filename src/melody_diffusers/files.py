"""Folders that are there whole or not at all."""

import os
import shutil
import uuid
from pathlib import Path


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
