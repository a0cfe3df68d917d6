"""Where sounds come from and under which licence: what may be trained on, and the data set's LICENSES.md."""

import hashlib
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

PERMISSIVE = ("MIT", "CC0-1.0", "BSD-2-Clause", "BSD-3-Clause", "Apache-2.0", "ISC", "Zlib", "Unlicense")


@dataclass(frozen=True)
class Origin:
    """A collection of sounds: licence (SPDX), holders, where it is from and the Debian package that installs it."""

    licence: str
    holders: str
    url: str
    package: str | None = None


_FLUID = "Frank Wen 2000-2002, 2008"
ORIGINS = {
    "FluidR3Mono_trimmed": Origin(
        "MIT",
        f"Michael Cowgill 2014-2017 (mono version); Ethan Winer 2002; Michael Schorsch 2016; {_FLUID}",
        "cut down from FluidR3Mono_GM.sf3 of Debian's fluidr3mono-gm-soundfont; notices in training/synthetic/fonts",
    ),
    "MuseScore_General": Origin(
        "MIT AND CC0-1.0",
        f"S. Christian Collins 2018-2021; Michael Cowgill 2014-2017; Ethan Winer 2002; Michael Schorsch 2016; {_FLUID};"
        " CC0 or public domain: MuseScore Drumline (S. Christian Collins, Amir Oosman), Splendid Grand Piano, VCSL's "
        "crash cymbals (Sam Gossner)",
        "https://packages.debian.org/musescore-general-soundfont-small",
        "musescore-general-soundfont-small",
    ),
    "FluidR3_GM": Origin("MIT", _FLUID, "https://packages.debian.org/fluid-soundfont-gm", "fluid-soundfont-gm"),
    "TimGM6mb": Origin("GPL-2.0", "Tim Brechbill 2004", "https://packages.debian.org/timgm6mb-soundfont"),
}
ORIGINS["MuseScore_General_Lite"] = ORIGINS["MuseScore_General"]
DEBIAN_FONTS = (
    Path("/usr/share/sounds/sf3/MuseScore_General_Lite.sf3"),
    Path("/usr/share/sounds/sf2/FluidR3_GM.sf2"),
)

SAMPLE_PACKAGE = "sonic-pi-samples"
# Sound number and author on freesound.org of the recordings that kits.py uses; all CC0 by the package's copyright file.
FREESOUND = {
    "bd_808": (208447, "EKVelika"),
    "bd_ada": (208871, "adammusic18"),
    "bd_boom": (157245, "Snapper4298"),
    "bd_fat": (124386, "cubix"),
    "bd_gas": (89460, "menegass"),
    "bd_haus": (137722, "Rodrigo The Mad"),
    "bd_klub": (83262, "zgump"),
    "bd_pure": (209571, "EKVelika"),
    "bd_sone": (223090, "soneproject"),
    "bd_tek": (171104, "DWSD"),
    "bd_zome": (55231, "Dolfeus"),
    "bd_zum": (172124, "n1ghthawk"),
    "drum_bass_hard": (100051, "menegass"),
    "drum_bass_soft": (100052, "menegass"),
    "drum_cymbal_closed": (100053, "menegass"),
    "drum_cymbal_hard": (100056, "menegass"),
    "drum_cymbal_open": (100055, "menegass"),
    "drum_cymbal_pedal": (100054, "menegass"),
    "drum_cymbal_soft": (100057, "menegass"),
    "drum_heavy_kick": (4832, "Zajo"),
    "drum_snare_hard": (100058, "menegass"),
    "drum_snare_soft": (100059, "menegass"),
    "drum_splash_hard": (100060, "menegass"),
    "drum_splash_soft": (100061, "menegass"),
    "drum_tom_hi_hard": (100062, "menegass"),
    "drum_tom_hi_soft": (100063, "menegass"),
    "drum_tom_lo_hard": (100064, "menegass"),
    "drum_tom_lo_soft": (100065, "menegass"),
    "drum_tom_mid_hard": (100066, "menegass"),
    "drum_tom_mid_soft": (100067, "menegass"),
    "elec_fuzz_tom": (13140, "looppool"),
    "elec_hi_snare": (13125, "looppool"),
    "elec_hollow_kick": (13099, "looppool"),
    "elec_mid_snare": (13132, "looppool"),
    "elec_pop": (13134, "looppool"),
    "elec_snare": (13146, "looppool"),
    "elec_soft_kick": (13142, "looppool"),
    "elec_tick": (13113, "looppool"),
    "elec_wood": (13135, "looppool"),
    "sn_dolf": (57534, "Dolfeus"),
    "sn_dub": (173142, "Adriak909"),
    "sn_zome": (55232, "Dolfeus"),
}


def is_permissive(licence: str) -> bool:
    """Whether every part of an SPDX expression with AND may be trained on without conditions on what comes of it."""
    return all(part.strip() in PERMISSIVE for part in licence.split(" AND "))


def licence_of(font: Path, stated: str | None = None) -> str | None:
    """The licence of a known font by its name, or the one that is stated for another."""
    origin = ORIGINS.get(font.stem)
    return stated if origin is None else origin.licence


@lru_cache
def _version(package: str) -> str:
    """The installed version of a Debian package; empty if it cannot be told."""
    try:
        query = ["dpkg-query", "--show", "--showformat=${Version}", package]
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _named(package: str | None, file: Path) -> str:
    if package is None or not file.resolve().is_relative_to("/usr/share"):
        return "none"
    return f"{package} {_version(package)}".strip()


def manifest(fonts: dict[Path, str | None], test_font: Path | None, samples: Iterable[Path]) -> str:
    """LICENSES.md: every file that sounds were made from, with package, version, licence, source and checksum."""
    rows = []
    for font, stated in fonts.items():
        rows.append(_font_row(font, licence_of(font, stated) or "not stated", "all but test_font"))
    if test_font is not None:
        rows.append(_font_row(test_font, licence_of(test_font) or "not stated", "test_font only, for testing"))
    for file in samples:
        number, author = FREESOUND[file.stem]
        source = f"https://freesound.org/s/{number}/"
        rows.append(
            (file.name, "all but test_font", "CC0-1.0", author, _named(SAMPLE_PACKAGE, file), source, _sha(file))
        )
    header = ("file", "splits", "licence", "copyright or author", "Debian package", "source", "SHA-256")
    lines = [f"| {' | '.join(row)} |" for row in (header, ("---",) * len(header), *rows)]
    return MANIFEST.format(table="\n".join(lines))


def _font_row(font: Path, licence: str, splits: str) -> tuple[str, ...]:
    origin = ORIGINS.get(font.stem) or Origin(licence, "not stated", "given by the builder")
    return font.name, splits, licence, origin.holders, _named(origin.package, font), origin.url, _sha(font)


def _sha(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


MANIFEST = """# Where the sounds of this data set come from

The recordings are rendered; none of these files is part of the data set. Synthesiser voices, drum machines, vinyl noise
and rooms are computed by the builder and contain no recording.

{table}
"""
