"""What judges hear in the music that a pipeline makes of a prompt, seed after seed.

    python training/check_prompts.py "a slow solo piano piece" "rock with electric guitar and drums"

Prints, for each prompt, how many of the clips have which style and which family of instruments in the lead, by the
judges of `melody evaluate` (train_judges.py). A prompt to show to others is one that is obeyed every time.
"""

import argparse
from collections import Counter

import torch

from melody_diffusers import MELODY_TINY, MeLoDyPipeline
from melody_diffusers.evaluation.judges import ClipJudge


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompts", nargs="+")
    parser.add_argument("--model", default=MELODY_TINY, help="folder or repository (default: melody-tiny)")
    parser.add_argument("--judges", default="outputs/judges", help="by train_judges.py (default: outputs/judges)")
    parser.add_argument("--seeds", type=int, default=12, help="clips of each prompt, seeds 0 and on (default: 12)")
    args = parser.parse_args()
    pipe, judge = MeLoDyPipeline.from_pretrained(args.model), ClipJudge.from_pretrained(f"{args.judges}/clip")
    pipe.set_progress_bar_config(disable=True)
    for prompt in args.prompts:
        heard: dict[str, Counter[str]] = {question: Counter() for question in judge.config.labels}
        for start in range(0, args.seeds, 6):
            generators = [torch.Generator().manual_seed(s) for s in range(start, min(start + 6, args.seeds))]
            clips = pipe([prompt] * len(generators), ending=None, generator=generators, output_type="pt").audios
            for question, answers in judge.judge(clips).items():
                heard[question].update(answers)
        counts = ["; ".join(f"{answer} {n}" for answer, n in heard[name].most_common()) for name in sorted(heard)]
        print(f"{prompt}: {' | '.join(counts)}", flush=True)


if __name__ == "__main__":
    main()
