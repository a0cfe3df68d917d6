"""Gives a MuLanModel the text side of a public CLAP: its text encoder, its tokenizer, and a reading of its text space.

    python conversion/mulan_from_clap.py --mulan outputs/mulan_start --clap laion/larger_clap_music \
        --texts captions.txt --out outputs/mulan_clap

--mulan is a MuLanModel, one that mulan_from_ast_bert.py wrote say; its audio tower and its spectrogram stay.
--texts holds one text a line; the more of them, and the more like your captions, the better.

Carried over exactly: CLAP's text encoder, a RoBERTa, which a BERT can be. RoBERTa counts positions from its padding
index + 1, BERT from 0, so that many rows of the position table go. The tokenizer is byte-level BPE, not WordPiece.

Carried over approximately: CLAP's embedding of a text. CLAP reads the first token through a pooler and two layers with
a ReLU between them; MuLan reads the mean over the tokens through one matrix. That matrix is fitted by least squares to
CLAP's embeddings of nine tenths of the texts, and the cosine on the others is printed. MuLan's embedding takes CLAP's
width, so CLAP's embeddings of audio can serve as targets of the audio tower.

Left behind: CLAP's audio encoder, a Swin transformer, for which MuLan has no place, and its two temperatures. The audio
projection is new, drawn from --seed: until MuLan is trained, its embeddings of music say nothing.
"""

import argparse
from pathlib import Path

import melody_diffusers  # noqa: F401 (first, which keeps torchao quiet)  # isort: skip

import torch
import transformers
from torch import Tensor
from transformers import AutoTokenizer, BertConfig, ClapTextConfig, ClapTextModelWithProjection, PreTrainedTokenizerFast

from melody_diffusers import MuLanConfig, MuLanModel
from melody_diffusers.conversion_utils import compare

BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")  # constants that some checkpoints hold, some do not
RIDGE = 1e-4  # of the mean squared hidden state, against texts that are few or alike


def bert_config(roberta: ClapTextConfig) -> BertConfig:
    """The BERT that computes what this RoBERTa computes."""
    shared = BertConfig.__annotations__.keys() & type(roberta).__annotations__.keys()
    sizes = {name: getattr(roberta, name) for name in shared}
    sizes["max_position_embeddings"] = roberta.max_position_embeddings - roberta.pad_token_id - 1
    return BertConfig(**sizes)


def bert_weights(clap: ClapTextModelWithProjection) -> dict[str, Tensor]:
    """CLAP's text encoder under BERT's names, which are the same, without the positions that only padding has."""
    weights = clap.text_model.state_dict()
    positions = "embeddings.position_embeddings.weight"
    weights[positions] = weights[positions][clap.config.pad_token_id + 1 :]
    return {name: weight for name, weight in weights.items() if not name.startswith(("pooler.", *BUFFERS))}


def encode(
    mulan: MuLanModel,
    clap: ClapTextModelWithProjection,
    tokenizer: PreTrainedTokenizerFast,
    texts: list[str],
    batch_size: int = 64,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Per text: MuLan's pooled hidden states (N, H) and embeddings (N, E), and CLAP's embeddings (N, E) of unit length;
    and the hidden states of all tokens of the last batch, MuLan's and CLAP's, as (2, tokens, H)."""
    pooled, ours, theirs = [], [], []
    for start in range(0, len(texts), batch_size):
        tokens = tokenizer(texts[start : start + batch_size], padding=True, truncation=True, return_tensors="pt")
        ids, mask = tokens["input_ids"], tokens["attention_mask"]
        hidden = mulan.text_tower(ids, attention_mask=mask).last_hidden_state  # (B, P, H)
        text = clap(ids, attention_mask=mask)
        pooled.append((hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))
        ours.append(mulan.get_text_features(ids, mask))
        theirs.append(torch.nn.functional.normalize(text.text_embeds, dim=-1))
    both = torch.stack([hidden[mask.bool()], text.last_hidden_state[mask.bool()]])
    return torch.cat(pooled), torch.cat(ours), torch.cat(theirs), both


def least_squares(inputs: Tensor, targets: Tensor) -> Tensor:
    """The matrix W (E, H) that brings W x nearest to y over the rows of inputs (N, H) and targets (N, E)."""
    inputs, targets = inputs.double(), targets.double()
    gram = inputs.T @ inputs
    ridge = RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    return torch.linalg.solve(gram + ridge, inputs.T @ targets).T.float()


@torch.no_grad()
def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mulan", required=True, help="folder of the MuLanModel whose audio tower stays")
    parser.add_argument("--clap", required=True, help="folder or name of a CLAP checkpoint, with its tokenizer")
    parser.add_argument("--texts", type=Path, required=True, help="text file, one text a line, at least 20")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--seed", type=int, default=0, help="of the audio projection")
    parser.add_argument("--allow_pickle", action="store_true", help="read pytorch_model.bin, as plain weights only")
    parser.add_argument("--tolerance", type=float, default=1e-5, help="largest relative difference of the text encoder")
    args = parser.parse_args(arguments)

    texts = list(dict.fromkeys(filter(None, map(str.strip, args.texts.read_text(encoding="utf-8").splitlines()))))
    if len(texts) < 20:
        raise ValueError(f"{args.texts} must hold at least 20 different texts, one a line; it holds {len(texts)}.")
    clap, report = ClapTextModelWithProjection.from_pretrained(
        args.clap,
        dtype=torch.float32,
        use_safetensors=None if args.allow_pickle else True,
        output_loading_info=True,
    )
    if missing := sorted(name for name in report["missing_keys"] if not name.endswith(BUFFERS)):
        raise ValueError(f"{args.clap} must hold every weight of CLAP's text side; it lacks {', '.join(missing[:5])}.")
    clap.eval()
    start = MuLanModel.from_pretrained(args.mulan, dtype=torch.float32)
    text_config = bert_config(clap.config)
    theirs = AutoTokenizer.from_pretrained(args.clap)
    tokenizer = PreTrainedTokenizerFast(  # the same under a name that says nothing of the model
        tokenizer_object=theirs.backend_tokenizer,
        **theirs.special_tokens_map,
        padding_side="right",  # positions counted from 0 are then those counted from the first token
        model_max_length=min(theirs.model_max_length, text_config.max_position_embeddings),
    )

    torch.manual_seed(args.seed)
    kept = {name: getattr(start.config, name) for name in ("sample_rate", "n_fft", "hop_length", "mel_mean", "mel_std")}
    mulan = MuLanModel(
        MuLanConfig(start.config.audio_config, text_config, projection_dim=clap.config.projection_dim, **kept)
    ).eval()
    mulan.audio_tower.load_state_dict(start.audio_tower.state_dict())
    mulan.text_tower.load_state_dict(bert_weights(clap))
    held_out, fitted = texts[::10], [text for i, text in enumerate(texts) if i % 10]
    inputs, _, targets, _ = encode(mulan, clap, tokenizer, fitted)
    mulan.text_projection.weight.copy_(least_squares(inputs, targets))
    mulan.save_pretrained(args.out)
    tokenizer.save_pretrained(args.out / "tokenizer")

    mulan = MuLanModel.from_pretrained(args.out, dtype=torch.float32).eval()
    _, ours, theirs, hidden = encode(mulan, clap, tokenizer, held_out)
    others = torch.cosine_similarity(ours, theirs.roll(1, 0)).mean().item()
    print(
        f"text embeddings of {len(held_out)} texts held out of {len(texts)}: cosine to CLAP's "
        f"{torch.cosine_similarity(ours, theirs).mean():.3f}, to CLAP's of another text {others:.3f}"
    )
    print(f"audio projection drawn from seed {args.seed}; embeddings have CLAP's width, {mulan.config.projection_dim}")
    compare("text tower", [hidden[0]], [hidden[1]], args.tolerance)
    print(f"{args.out}: {sum(p.numel() for p in mulan.parameters()) / 1e6:.1f} M parameters")


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()  # what stays behind is meant to
    main()
