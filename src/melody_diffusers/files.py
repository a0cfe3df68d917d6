"""Folders that are there whole or not at all."""

import os
import shutil
import uuid
from pathlib import Path


def put_in_place(new: Path, place: Path) -> None:
    """Rename the folder `new` to `place`. A folder that is there already is replaced, and never lost.

    It is moved aside before, back if anything fails, and removed last.

    Raises:
        OSError: `place` could not be replaced, and is as it was; `new` is still there.
    """
    if not place.exists():
        os.replace(new, place)
        return
    aside = place.with_name(f".old-{place.name}-{uuid.uuid4().hex[:8]}")
    os.replace(place, aside)
    try:
        os.replace(new, place)
    except OSError:
        os.replace(aside, place)
        raise
    shutil.rmtree(aside, ignore_errors=True)
