"""Trains SemanticLM on the cached tokens of `encode_dataset`: MuLan tokens in front, semantic tokens to be predicted.

    python training/train_semantic_lm.py --config training/configs/semantic_lm/tiny.yaml

The paper conditions on the audio's own MuLan tokens and swaps in the text's at generation. With `text_share` some
examples are conditioned on the tokens of one of the clip's captions, which narrows the step between the two.
"""

from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader

from melody_diffusers.data.datasets import EncodedClips
from melody_diffusers.losses import token_nll
from melody_diffusers.models.residual_quantizer import ResidualQuantizer
from melody_diffusers.models.semantic_lm import SemanticLM, SemanticLMConfig
from melody_diffusers.training_utils import OptimConfig, RunConfig, TrainingRun, load_config, parse_args


@dataclass(kw_only=True)
class DataConfig:
    """Windows of `num_tokens` semantic tokens.

    Args:
        start: folder or name of a SemanticLM of these sizes to go on from. The embeddings of MuLan tokens are made
            anew, because the tokens of another MuLan mean something else.
        keep_mulan: keeps these embeddings as well, where MuLan and its quantizer are still the same.
        mulan_quantizer: folder or name of the ResidualQuantizer the MuLan tokens come from; with it
            embeddings that are not kept begin as its centroids.
        text_share: share of examples that are conditioned on the tokens of a caption or tag list.
        drop_condition: share of examples without condition, for guidance; the model needs `null_condition`.
        drop_past: each example is continued from what remains of it when a share of its semantic tokens, drawn from
            [0, drop_past], is left out. Past tokens tell much of what the condition says, and without this the model
            comes to rely on them alone (word dropout, Bowman et al. 2016); the model needs `null_condition`.
        sample_past: a further share, drawn from [0, sample_past], is replaced by what the model itself would have drawn
            there (scheduled sampling in one pass, Mihaylova and Martins 2019). A model that has only seen music in the
            key that was asked for follows its own first wrong note into another.
        heldout_passes: random windows of each validation clip that are judged.
    """

    folder: str
    start: str | None = None
    keep_mulan: bool = False
    mulan_quantizer: str | None = None
    num_tokens: int = 250
    text_share: float = 0.0
    drop_condition: float = 0.0
    drop_past: float = 0.0
    sample_past: float = 0.0
    heldout_passes: int = 2


def nll(
    lm: SemanticLM, mulan_tokens: torch.Tensor, semantic_tokens: torch.Tensor, past: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean nats of the semantic tokens (B, S) after those before them, as they are or as in `past` (B, S).

    The MuLan tokens (B, N) are given, not predicted.
    """
    logits = lm.semantic_logits(mulan_tokens, semantic_tokens if past is None else past)
    return token_nll(logits, semantic_tokens)


@torch.no_grad()
def start_from(lm: SemanticLM, start: SemanticLM, keep_mulan: bool) -> None:
    """Copies all weights; those of MuLan tokens only if `keep_mulan`."""
    for name, tensor in start.state_dict().items():
        own = lm.state_dict()[name]
        of_tokens = not keep_mulan and name.endswith(("embed_tokens.weight", "lm_head.weight"))
        rows = slice(lm.config.semantic_codebook_size if of_tokens else None)
        if own[rows].shape != tensor[rows].shape:
            raise ValueError(f"data.start: {name} is {tuple(tensor.shape)} there and {tuple(own.shape)} in model.")
        own[rows] = tensor[rows]


@torch.no_grad()
def embed_centroids(lm: SemanticLM, codebooks: torch.Tensor) -> None:
    """Embeddings of MuLan tokens from the codebooks (N, V, D) of their quantizer, D below the width H of the model.

    The mean over a condition's tokens then holds the vector they stand for, and conditions that sound alike look alike
    from the first step; rows that know nothing of each other have to find that out from examples. The other H - D
    numbers are a direction for each codebook, as long as it takes for all rows to have the length of the semantic
    tokens' mean: the norm in front of the attention would else make the last codebook as loud as the first.
    """
    count, size, dim = codebooks.shape
    rows = lm.get_input_embeddings().weight
    width = rows.shape[-1]
    if (count, size) != (lm.config.num_mulan_codebooks, lm.config.mulan_codebook_size) or dim >= width:
        raise ValueError(
            f"data.mulan_quantizer must have {lm.config.num_mulan_codebooks} codebooks of "
            f"{lm.config.mulan_codebook_size} vectors shorter than {width}, got {count} of {size} of length {dim}."
        )
    first = lm.config.semantic_codebook_size
    length = rows[:first].norm(dim=-1).mean()
    centroids = codebooks.float() * (0.9 * length / codebooks.float().norm(dim=-1).max())  # (N, V, D)
    directions = torch.nn.functional.normalize(torch.randn(count, 1, width - dim), dim=-1)
    rest = (length**2 - centroids.square().sum(-1, keepdim=True)).sqrt() * directions  # (N, V, H - D)
    rows[first : first + count * size] = torch.cat([centroids, rest], dim=-1).flatten(0, 1)


def count_baselines(train: EncodedClips, heldout: torch.Tensor, size: int) -> dict[str, float]:
    """Held-out nats per token of the tokens' frequencies (unigram) and of their successions (bigram, backed off)."""
    unigram, bigram = torch.ones(size), torch.zeros(size, size)
    for index in range(len(train)):
        tokens = train[index]["semantic_tokens"]
        unigram += torch.bincount(tokens, minlength=size)
        bigram.view(-1).index_add_(0, tokens[:-1] * size + tokens[1:], torch.ones(len(tokens) - 1))
    unigram = unigram / unigram.sum()
    # a pseudo-count of 5 at the unigram frequencies
    bigram = (bigram + 5.0 * unigram) / (bigram.sum(-1, keepdim=True) + 5.0)
    return {
        "unigram": float(-unigram[heldout].log().mean()),
        "bigram": float(-bigram[heldout[:, :-1], heldout[:, 1:]].log().mean()),
    }


@torch.no_grad()
def heldout_figures(lm: SemanticLM, clips: EncodedClips, passes: int, batch_size: int) -> dict[str, float]:
    """Nats per held-out token with each clip's own condition, with the next clip's and, where known, with none."""
    totals = {"nll": 0.0, "nll_shuffled_condition": 0.0}
    if lm.config.null_condition:
        totals["nll_no_condition"] = 0.0
    count = 0
    for epoch in range(passes):
        clips.set_epoch(epoch)
        # a fixed permutation, since neighbours in the file may share a style
        order = torch.randperm(len(clips), generator=torch.Generator().manual_seed(epoch)).tolist()
        for batch in DataLoader(clips, batch_size, sampler=order):
            mulan, tokens = batch["mulan_tokens"].to(lm.device), batch["semantic_tokens"].to(lm.device)
            totals["nll"] += float(nll(lm, mulan, tokens)) * len(tokens)
            totals["nll_shuffled_condition"] += float(nll(lm, mulan.roll(1, dims=0), tokens)) * len(tokens)
            if lm.config.null_condition:
                totals["nll_no_condition"] += float(nll(lm, torch.full_like(mulan, -1), tokens)) * len(tokens)
            count += len(tokens)
    return {name: total / count for name, total in totals.items()}


def main() -> None:
    args = parse_args(__doc__)
    config = load_config(args.config, {"model": SemanticLMConfig, "data": DataConfig, "optim": OptimConfig,
                                       "run": RunConfig}, args.set)  # fmt: skip
    data, seed = config.data, config.run.seed
    torch.manual_seed(seed)
    lm = SemanticLM(SemanticLMConfig(**config.model))
    if data.start is not None:
        start_from(lm, SemanticLM.from_pretrained(data.start, dtype=torch.float32), data.keep_mulan)
    if data.mulan_quantizer is not None and not (data.start and data.keep_mulan):
        embed_centroids(lm, ResidualQuantizer.from_pretrained(data.mulan_quantizer).codebooks)
    for name in ("drop_condition", "drop_past"):
        if getattr(data, name) > 0 and not lm.config.null_condition:
            raise ValueError(f"data.{name} is {getattr(data, name)}: it needs model.null_condition: true.")
    clips = EncodedClips(data.folder, "train", data.num_tokens, seed=seed, text_share=data.text_share)
    loader = DataLoader(clips, config.run.batch_size, shuffle=True, num_workers=config.run.num_workers, drop_last=True)
    run = TrainingRun(config.run, {"semantic_lm": lm}, config)
    optimizer = run.optimizer(lm.parameters(), config.optim)

    for batch in run.steps(loader):
        mulan_tokens, past = batch["mulan_tokens"], batch["semantic_tokens"]  # (B, N), (B, S)
        if data.drop_condition > 0:
            draws = run.rand("drop", len(mulan_tokens), 1)
            mulan_tokens = mulan_tokens.masked_fill(draws < data.drop_condition, -1)
        if data.sample_past > 0:
            with torch.no_grad(), run.autocast():
                logits = lm.semantic_logits(mulan_tokens, past)  # (B, S, C)
            drawn = (logits - run.rand("noise", *logits.shape).log().neg().log()).argmax(-1)  # Gumbel-max
            shares = data.sample_past * run.rand("sampled share", len(past), 1)
            past = torch.where(run.rand("sampled", *past.shape) < shares, drawn, past)
        if data.drop_past > 0:
            shares = data.drop_past * run.rand("share", len(past), 1)
            past = past.masked_fill(run.rand("past", *past.shape) < shares, -1)
        with run.autocast():
            loss = nll(lm, mulan_tokens, batch["semantic_tokens"], past)
        run.backward(loss, optimizer)
        run.finish_step(nll=loss)

    run.save()
    lm.eval()
    figures = {}
    for kind, text_share in (("audio", 0.0), ("text", 1.0)):
        heldout = EncodedClips(data.folder, "validation", data.num_tokens, seed=seed, text_share=text_share)
        judged = heldout_figures(lm, heldout, data.heldout_passes, config.run.batch_size)
        figures |= {f"{kind}_{name}": value for name, value in judged.items()}
    tokens = torch.stack([heldout[index]["semantic_tokens"] for index in range(len(heldout))])
    whole = EncodedClips(data.folder, "train", None)
    figures |= count_baselines(whole, tokens, lm.config.semantic_codebook_size)
    run.log(**figures)
    shown = ", ".join(f"{name} {value:.3f}" for name, value in figures.items())
    print(f"semantic_lm: {run.step} steps; held-out nats per token: {shown}; perplexity from text "
          f"{torch.tensor(figures['text_nll']).exp():.1f}")  # fmt: skip


if __name__ == "__main__":
    main()
