"""Starts a MuLanModel from a public audio spectrogram transformer and a public BERT.

    python conversion/mulan_from_ast_bert.py --audio MIT/ast-finetuned-audioset-10-10-0.4593 \
        --text google-bert/bert-base-uncased --out outputs/mulan_start

Carried over: every weight of both encoders, their sizes, and the tokenizer (to OUT/tokenizer). Left behind: AST's
classifier, BERT's pooler and its heads. New, drawn from --seed: the two projections into the shared space, and the
temperature. Until MuLan is trained its embeddings therefore say nothing.

The spectrograms are not the same. Mel bands, frames in a window and 10 ms between frames are taken over; but

                 AST                                    MuLan
    audio        16 kHz, bands from 20 Hz to 8 kHz      24 kHz, bands from 0 to 12 kHz
    bands        Kaldi's mel scale, of height 1         Slaney's mel scale, of area 1
    frame        25 ms, no padding, pre-emphasis 0.97   43 ms, centred, no pre-emphasis
    value        logarithm of the power                 logarithm of the magnitude

`mel_mean` and `mel_std` are set so that pink noise enters the audio tower at the level and with the contrast that it
has in AST; how far apart the tower then hears the two spectrograms is printed. Training takes up the rest.
"""

import argparse
from pathlib import Path
from typing import Any

import melody_diffusers  # noqa: F401 (first, which keeps torchao quiet)  # isort: skip

import torch
import transformers
from torch import Tensor
from transformers import ASTFeatureExtractor, ASTModel, AutoTokenizer, BertModel, PreTrainedConfig, PreTrainedModel

from melody_diffusers import MuLanConfig, MuLanModel
from melody_diffusers.audio import resample
from melody_diffusers.conversion_utils import compare

SAMPLE_RATE, HOP_SECONDS = 24000, 0.01


def load(model_class: type[PreTrainedModel], source: str, allow_pickle: bool, **kwargs) -> Any:
    """The model of a folder or a Hub repository in float32; ValueError where a weight is missing."""
    model, report = model_class.from_pretrained(
        source,
        dtype=torch.float32,
        use_safetensors=None if allow_pickle else True,
        output_loading_info=True,
        **kwargs,
    )
    if report["missing_keys"]:
        missing = ", ".join(sorted(report["missing_keys"])[:5])
        raise ValueError(f"{source} must hold every weight of {model_class.__name__}; it lacks {missing}.")
    return model.eval()


def own_fields(config: PreTrainedConfig) -> dict[str, Any]:
    """What this kind of config defines itself: sizes and the like, no labels and no paths."""
    return {name: getattr(config, name) for name in type(config).__annotations__}


def pink_noise(num_samples: int, generator: torch.Generator) -> Tensor:
    """Noise (T,) with as much power in each octave, at -20 dB."""
    spectrum = torch.fft.rfft(torch.randn(num_samples, generator=generator))
    noise = torch.fft.irfft(spectrum / torch.arange(1, len(spectrum) + 1).sqrt(), n=num_samples)
    return 0.1 * noise / noise.std()


def ast_log_mel(extractor: ASTFeatureExtractor, waveform: Tensor) -> Tensor:
    """What AST hears (1, F, M) of a waveform (T,) at SAMPLE_RATE."""
    waveform = resample(waveform, SAMPLE_RATE, extractor.sampling_rate)
    return extractor(waveform.numpy(), sampling_rate=extractor.sampling_rate, return_tensors="pt")["input_values"]


@torch.no_grad()
def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--audio", required=True, help="folder or name of an AST checkpoint, with its preprocessor")
    parser.add_argument("--text", required=True, help="folder or name of a BERT checkpoint, with its tokenizer")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--projection_dim", type=int, default=128, help="width of the shared space")
    parser.add_argument("--seed", type=int, default=0, help="of the projections")
    parser.add_argument("--allow_pickle", action="store_true", help="read pytorch_model.bin, as plain weights only")
    parser.add_argument("--tolerance", type=float, default=1e-5, help="largest relative difference of the encoders")
    args = parser.parse_args(arguments)

    ast = load(ASTModel, args.audio, args.allow_pickle)
    bert = load(BertModel, args.text, args.allow_pickle, add_pooling_layer=False)
    extractor = ASTFeatureExtractor.from_pretrained(args.audio)
    tokenizer = AutoTokenizer.from_pretrained(args.text)
    tokenizer.model_max_length = min(tokenizer.model_max_length, bert.config.max_position_embeddings)

    torch.manual_seed(args.seed)
    mulan = MuLanModel(
        MuLanConfig(
            audio_config=own_fields(ast.config),
            text_config=own_fields(bert.config),
            projection_dim=args.projection_dim,
            sample_rate=SAMPLE_RATE,
            hop_length=round(HOP_SECONDS * SAMPLE_RATE),
            mel_mean=0.0,
            mel_std=1.0,
        )
    ).eval()
    mulan.audio_tower.load_state_dict(ast.state_dict())
    mulan.text_tower.load_state_dict(bert.state_dict())

    generator = torch.Generator().manual_seed(0)
    noise = pink_noise(2 * mulan.window_samples, generator)
    theirs, ours = ast_log_mel(extractor, noise), mulan.log_mel(noise[None, None, : mulan.window_samples])
    mulan.config.mel_std = round((ours.std() / theirs.std()).item(), 4)
    mulan.config.mel_mean = round((ours.mean() - mulan.config.mel_std * theirs.mean()).item(), 4)
    mulan.save_pretrained(args.out)
    tokenizer.save_pretrained(args.out / "tokenizer")

    mulan = MuLanModel.from_pretrained(args.out, dtype=torch.float32).eval()
    ids = torch.randint(len(tokenizer), (2, min(32, tokenizer.model_max_length)), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, ids.shape[1] // 2 :] = 0
    heard = mulan.audio_tower(theirs).last_hidden_state
    words = mulan.text_tower(ids, attention_mask=mask).last_hidden_state
    own = mulan.audio_tower(mulan.log_mel(noise[None, None, : mulan.window_samples])[0]).last_hidden_state
    cosine = torch.cosine_similarity(own.mean(1), heard.mean(1)).item()
    print(f"mel_mean {mulan.config.mel_mean}, mel_std {mulan.config.mel_std}; projections drawn from seed {args.seed}")
    print(f"pink noise through MuLan's spectrogram and through AST's: cosine {cosine:.3f} after the audio tower")
    compare("audio tower", [heard], [ast(theirs).last_hidden_state], args.tolerance)
    compare("text tower", [words], [bert(ids, attention_mask=mask).last_hidden_state], args.tolerance)
    print(f"{args.out}: {sum(p.numel() for p in mulan.parameters()) / 1e6:.1f} M parameters")


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()  # what stays behind is meant to
    main()
