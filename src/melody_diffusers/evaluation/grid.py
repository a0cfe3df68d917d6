"""The grid: prompts that join style, lead, tempo, key, drums and number of players freely, in words of their own.

Its prompts are the column `prompts` of the open data set, whose words and sentences no training caption has. One row
is of the split `test`, whose pairs of style and lead were trained on, one of `unseen_pairs`. The windows that the
prompts are of are judged beside them: what the judges hear at best. One prompt more is asked with many seeds: whether
it is obeyed by luck.
"""

import random
from typing import Any

from melody_diffusers.evaluation.clips import GRID_QUESTIONS, Clip, answer, is_triple, key_of
from melody_diffusers.evaluation.rows import key_hits, recognised, tempo_hits

GRID_SPLITS = {"test": "seen pairs", "unseen_pairs": "unseen pairs"}
SEEDS_ROW = "seeds of one prompt"
SEEDS_PROMPT = "a cheerful solo piano waltz"
SEEDS_EXPECTED = {"style": "waltz", "family": "piano"}


def choose_grid(
    windows: list[dict], hand_written: dict[str, dict[str, dict]], name: str, count: int, seed: int
) -> list[tuple[dict, Clip]]:
    """At most `count` windows of as many pieces, the styles taking turns, each with the clip to be made of its prompt.

    A clip is asked what its prompt names.
    """
    shuffled = random.Random(seed).sample(windows, len(windows))
    of_style: dict[str, dict[str, dict]] = {}
    for window in shuffled:
        if window.get("prompts"):
            of_style.setdefault(window["style"], {}).setdefault(window["piece_id"], window)
    queues = [list(of_style[style].values()) for style in sorted(of_style)]
    longest = max(map(len, queues), default=0)
    in_turn = [queue[turn] for turn in range(longest) for queue in queues if turn < len(queue)][:count]
    chosen = []
    for number, window in enumerate(in_turn):
        prompt = window["prompts"][number % len(window["prompts"])]
        named = set(prompt["named"])
        answers = {question: answer(window, question) for question in GRID_QUESTIONS if question in named}
        clip = Clip(
            file=f"{name}/{number:04d}.flac",
            text=prompt["text"],
            expected={question: said for question, said in answers.items() if said is not None},
            bpm=window["bpm"] if "bpm" in named else None,
            key=key_of(window) if "key" in named else None,
            triple=is_triple(window, hand_written),
            source="prompt",
            piece=window["piece_id"],
            seed=seed + number,
        )
        chosen.append((window, clip))
    return chosen


def seeds_of_one_prompt(count: int, seed: int) -> list[Clip]:
    """`SEEDS_PROMPT` with `count` seeds, from `seed` on, each asked for style and family."""
    return [
        Clip(
            file=f"{SEEDS_ROW}/{number:04d}.flac",
            text=SEEDS_PROMPT,
            expected=SEEDS_EXPECTED,
            bpm=None,
            key=None,
            triple=True,
            source="hand",
            piece="",
            seed=seed + number,
        )
        for number in range(count)
    ]


def grid_figures(clips: list[Clip], heard: dict[str, list]) -> dict[str, Any]:
    """Shares of a row in which the judges hear what was asked; `both` is style and family of one clip at once."""
    both = [
        all(heard[question][i] == clip.expected[question] for question in ("style", "family"))
        for i, clip in enumerate(clips)
        if {"style", "family"} <= clip.expected.keys()
    ]
    asked = [q for q in GRID_QUESTIONS if q in heard and any(q in clip.expected for clip in clips)]
    return {
        **{question: recognised(clips, heard[question], question) for question in asked},
        "both": {"share": sum(both) / len(both) if both else float("nan"), "clips": len(both)},
        "tempo": tempo_hits(clips, heard["bpm"]),
        "key": key_hits(clips, heard["key"]),
    }


def grid_table(rows: dict[str, dict]) -> list[str]:
    """One line a row, one column a question."""
    order = ("style", "family", "both", *GRID_QUESTIONS[2:], "tempo", "key")
    columns = [name for name in order if any(name in row for row in rows.values())]
    lines = [f"| clips | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name, row in rows.items():
        shares = [row.get(column, {"clips": 0}) for column in columns]
        cells = [f"{s['share']:.0%} of {s['clips']}" if s["clips"] else "-" for s in shares]
        lines.append(f"| {' | '.join([name, *cells])} |")
    return lines
