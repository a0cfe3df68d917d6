"""Twenty excerpts of real recordings, to judge a VAE by: free game music from Debian packages, as WAV.

    python training/real_recordings.py --out data/real

Downloads the packages with apt-get (420 MB; Debian or Ubuntu, no root needed), unpacks them beside each other without
installing anything, and writes 20 s of each recording, mono, 24 kHz. GPL and CC-BY-SA allow to listen and to judge; no
model here is trained on any of them. docs/data.md names the recordings.
"""

import argparse
import io
import subprocess
import zipfile
from pathlib import Path
from typing import NamedTuple

import soundfile
import torch

from melody_diffusers.audio import resample, save_audio, to_mono


class Excerpt(NamedTuple):
    """Where a recording lies in a package: a path, or an archive, "!" and a path in it; and from where it is cut."""

    package: str
    path: str
    start_seconds: float
    author: str
    licence: str


WESNOTH = "usr/share/games/wesnoth/1.16/data/core/music/"
LINCITY = "usr/share/games/lincity-ng/music/default/"
TUX_RACER = "usr/share/games/etr/music/"
NEXUIZ = "usr/share/games/nexuiz/data/music.pk3!sound/cdtracks/"
HYPERROGUE = "usr/share/hyperrogue/music/"
EXCERPTS = (
    Excerpt("wesnoth-1.16-music", WESNOTH + "loyalists.ogg", 30, "Joseph G. Toscano", "GPL-2+"),
    Excerpt("wesnoth-1.16-music", WESNOTH + "traveling_minstrels.ogg", 80, "Mattias Westlund", "GPL-2+"),
    Excerpt("wesnoth-1.16-music", WESNOTH + "love_theme.ogg", 30, "Ryan Reilly", "GPL-2+"),
    Excerpt("wesnoth-1.16-music", WESNOTH + "nunc_dimittis.ogg", 60, "Jeremy Nicoll", "GPL-2+"),
    Excerpt("wesnoth-1.16-music", WESNOTH + "elvish-theme.ogg", 50, "Doug Kaufman", "GPL-2+"),
    Excerpt("wesnoth-1.16-music", WESNOTH + "wanderer.ogg", 80, "Timothy Pinkham", "GPL-2+"),
    Excerpt("wesnoth-1.16-music", WESNOTH + "sad.ogg", 5, "Tyler Johnson", "GPL-2+"),
    Excerpt("lincity-ng-data", LINCITY + "02 - Robert van Herk - City Blues.ogg", 20, "Robert van Herk", "GPL-2+"),
    Excerpt(
        "lincity-ng-data",
        LINCITY + "03 - Robert van Herk - Architectural Contemplations.ogg",
        30,
        "Robert van Herk",
        "GPL-2+",
    ),
    Excerpt("extremetuxracer-data", TUX_RACER + "credits1-cp.ogg", 20, "Kristian Picon", "GPL-2+"),
    Excerpt("extremetuxracer-data", TUX_RACER + "freezingpoint.ogg", 30, "Grady O'Connell", "GPL-2+"),
    Excerpt("extremetuxracer-data", TUX_RACER + "calmrace-ks.ogg", 20, "K. Schroeder", "GPL-2+"),
    Excerpt("nexuiz-music", NEXUIZ + "beast-of-insanity.ogg", 40, "Braden Walters", "GPL-2+"),
    Excerpt("nexuiz-music", NEXUIZ + "brokenlight.ogg", 40, "blkrbt", "GPL-2+"),
    Excerpt("nexuiz-music", NEXUIZ + "digital-pursuit.ogg", 30, "Parapraxis", "GPL-2+"),
    Excerpt("hyperrogue-music", HYPERROGUE + "hr-savino-ivory.ogg", 10, "Will Savino", "CC-BY-SA-3.0"),
    Excerpt("hyperrogue-music", HYPERROGUE + "hr-savino-caribbean.ogg", 10, "Will Savino", "CC-BY-SA-3.0"),
    Excerpt("hyperrogue-music", HYPERROGUE + "hr-domina-mountain.ogg", 20, "Lincoln Domina", "CC-BY-SA-3.0"),
    Excerpt("zaz-data", "usr/share/games/zaz/mus2.ogg", 60, "Leonard Ritter", "CC-BY-SA-3.0"),
    Excerpt("pushover-data", "usr/share/pushover/themes/castle.ogg", 30, "Roberto Lorenz", "GPL-3+"),
)
SECONDS = 20.0


def unpacked(package: str, folder: Path) -> Path:
    """The folder that holds the package's files, which are downloaded unless they are there."""
    place = folder / package
    if not place.is_dir():
        debs = folder / f"{package}.deb"
        debs.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", "-q", package], cwd=debs, check=True)
        aside = folder / f".{package}"
        subprocess.run(["dpkg", "-x", str(next(debs.glob("*.deb"))), str(aside)], check=True)
        aside.rename(place)
    return place


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("data/real"), help="(default: data/real)")
    parser.add_argument("--packages", type=Path, default=Path("data/packages"), help="(default: data/packages)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for excerpt in EXCERPTS:
        archive, _, inside = excerpt.path.partition("!")
        path = unpacked(excerpt.package, args.packages) / archive
        content = zipfile.ZipFile(path).read(inside) if inside else path.read_bytes()
        with soundfile.SoundFile(io.BytesIO(content)) as file:  # not load_audio: some end before their header says
            file.seek(round(excerpt.start_seconds * file.samplerate))
            samples = file.read(round(SECONDS * file.samplerate), "float32", always_2d=True)  # (T, C)
            part = resample(to_mono(torch.from_numpy(samples.T)), file.samplerate, 24000)
        name = f"{excerpt.package.partition('-')[0]}-{Path(excerpt.path).stem.replace(' ', '_')}.wav"
        save_audio(args.out / name, part, 24000, comment=f"{excerpt.author}, {excerpt.licence}, {excerpt.package}")
        print(f"{part.shape[-1] / 24000:5.1f} s  {name}")


if __name__ == "__main__":
    main()
