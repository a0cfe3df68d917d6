"""How many of the notes of a MIDI file are right, of music whose composer is known.

    python training/evaluate_midi.py --data data/world

Composes the pieces of a data set of synthetic/build.py again, writes the MIDI file of each clip as `melody midi` does,
reads it, and prints two tables in Markdown: for the clips as they were rendered, and as a VAE gives them back.
docs/midi.md says what the columns are. Needs the extras `data` and `midi`; 32 clips of 20 s take two minutes.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from melody_diffusers import MELODY_TINY, AudioVAEGAN
from melody_diffusers.data.datasets import AudioClips
from melody_diffusers.evaluation.judges import OCTAVE_RATIOS, tempo_matches
from melody_diffusers.evaluation.listeners import notes_f1
from melody_diffusers.midi import write_midi

TOLERANCE = 0.005  # of a tempo: 50 ms in ten seconds


def notes_in(path: Path) -> np.ndarray:
    """The notes of a MIDI file, (N, 3): start and end in seconds, pitch."""
    import pretty_midi

    tracks = pretty_midi.PrettyMIDI(str(path)).instruments
    notes = [(note.start, note.end, note.pitch) for track in tracks for note in track.notes]
    return np.array(sorted(notes), float).reshape(-1, 3)


def figures(heard: np.ndarray, written: np.ndarray) -> dict[str, float]:
    """Of two lists of notes (N, 3): F1, the share of notes heard that are right, of notes written that are found."""
    f1 = notes_f1(heard, written)
    right = f1 * (len(heard) + len(written)) / 2
    one_pitch = [notes * [1, 1, 0] + [0, 0, 69] for notes in (heard, written)]
    return {
        "F1": f1,
        "right": right / max(len(heard), 1),
        "found": right / len(written),
        "F1 of starts": notes_f1(*one_pitch),
        "notes a second": len(heard),
        "written": len(written),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="data set folder of synthetic/build.py")
    parser.add_argument("--split", default="validation", help="(default: validation)")
    parser.add_argument("--clips", type=int, default=32, help="at even distances (default: 32)")
    parser.add_argument("--vae", type=Path, default=Path(MELODY_TINY, "vae"), help="(default: that of melody-tiny)")
    args = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent / "synthetic"))
    from score import written_notes

    vae = AudioVAEGAN.from_pretrained(args.vae).eval()
    dataset = AudioClips(args.data, args.split, None, vae.sample_rate, preload=False)
    tunes_file = args.data / "tunes.json" if (args.data / "tunes.json").is_file() else None
    count = min(args.clips, len(dataset))
    rows: dict[str, list[dict[str, float]]] = {"as rendered": [], "through the VAE": []}
    for index in (i * len(dataset) // count for i in range(count)):
        row, clip = dataset.rows[index], dataset.clip(index)  # (1, T)
        seconds = clip.shape[-1] / vae.sample_rate
        written = written_notes(row, seconds, tunes_file)
        if written is None:
            raise ValueError(f"{row['piece_id']} was made by another version of the composer; build {args.data} anew.")
        written = written[written[:, 0] < seconds]
        with torch.no_grad():
            decoded = vae.decode(vae.encode(clip[None]).latent_dist.mode()).sample[0, :, : clip.shape[-1]]
        for name, waveform in zip(rows, (clip, decoded)):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, "clip.mid")
                bpm = write_midi((vae.sample_rate, waveform), path).bpm
                found = figures(notes_in(path), written)
            for column in ("notes a second", "written"):
                found[column] /= seconds
            found["tempo"] = tempo_matches(bpm, row["bpm"], tolerance=TOLERANCE)
            found["or half, twice"] = tempo_matches(bpm, row["bpm"], tolerance=TOLERANCE, ratios=OCTAVE_RATIOS)
            rows[name].append(found | {"drums": row["drums"]})
            print(f"{name}, {row['piece_id']}: F1 {found['F1']:.2f}, {bpm:.5g} bpm", file=sys.stderr)
    for name, clips in rows.items():
        columns = [column for column in clips[0] if column != "drums"]
        print(f"\n| {name} | clips | {' | '.join(columns)} |\n|---|{'---|' * (len(columns) + 1)}")
        with_drums = [clip for clip in clips if clip["drums"]]
        without = [clip for clip in clips if not clip["drums"]]
        for group, those in (("all", clips), ("with drums", with_drums), ("without drums", without)):
            means = [f"{np.mean([clip[column] for clip in those]):.2f}" for column in columns] if those else []
            print(f"| {group} | {len(those)} | {' | '.join(means)} |")
        print(f"\nF1 from {min(clip['F1'] for clip in clips):.2f} to {max(clip['F1'] for clip in clips):.2f}")


if __name__ == "__main__":
    main()
