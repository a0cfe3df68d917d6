"""Fits the centroids of SemanticTokenizer to features of the trained encoder, and judges the tokens.

    python training/fit_semantic_kmeans.py --config training/configs/semantic_kmeans/tiny.yaml

The renderer hears nothing but these tokens, so they have to tell what sounds, how it sounds and when it starts. Linear
probes read that from the tokens of held-out clips, against as many k-means centroids of log-mel frames at the same
rate; the table is printed, and written to probes.json and probes.png beside the model.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn.cluster import MiniBatchKMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from torch.nn.functional import one_hot
from tqdm.auto import tqdm

from melody_diffusers.data.datasets import AudioClips
from melody_diffusers.devices import default_device
from melody_diffusers.models.clustering import nearest
from melody_diffusers.models.semantic_tokenizer import SemanticTokenizer, SemanticTokenizerConfig
from melody_diffusers.spectra import SPECTRAL_MEL, SPECTRAL_ONSET, SPECTRAL_SEMITONES, spectral_frames
from melody_diffusers.training_utils import load_config, parse_args


@dataclass(kw_only=True)
class DataConfig:
    """The encoder to take, and how many clips are clustered, and how many of the validation split are probed."""

    folder: str
    encoder: str
    crop_seconds: float = 10.0
    train_clips: int = 1200
    heldout_clips: int = 112


@dataclass(kw_only=True)
class ClusterConfig:
    """What is clustered: which layers compete, and the size of the vocabulary.

    Args:
        semitone_weight, onset_weight, chroma_weight: None seeks centroids in the standardised features as they are.
            Three numbers seek them where a linear map of the features reads the spectral frames and their pitch
            classes, which tell the key across octaves, with the mel bands at weight 1: half of what 9 bits of a plain
            clustering tell is loudness, and a beat is one number among 201.
        drop_upper_layers: leave the layers above the chosen one out of the tokenizer, which never needs them.
    """

    feature_layers: list[int]
    num_centroids: int = 1024
    batch_size: int = 8192
    num_passes: int = 10
    semitone_weight: float | None = None
    onset_weight: float | None = None
    chroma_weight: float | None = None
    drop_upper_layers: bool = False

    def __post_init__(self) -> None:
        weights = (self.semitone_weight, self.onset_weight, self.chroma_weight)
        if None in weights and any(weight is not None for weight in weights):
            raise ValueError(
                "cluster.semitone_weight, onset_weight and chroma_weight are given together or not at all, got "
                f"{weights[0]}, {weights[1]} and {weights[2]}; 0 leaves one out."
            )


@dataclass(kw_only=True)
class RunConfig:
    output_dir: str
    seed: int = 0


@dataclass
class Described:
    """Features of every layer, each (clips, S, H); the spectral frames (clips, S, 201); each clip's style or ""."""

    layers: list[torch.Tensor]
    references: torch.Tensor
    styles: np.ndarray


@torch.no_grad()
def describe(tokenizer: SemanticTokenizer, clips: AudioClips, count: int, crops: int = 1) -> Described:
    """What is clustered, and what the probes have to read from it, for `count` clips spread over the split, so many
    crops of each."""
    indices = [index * len(clips) // min(count, len(clips)) for index in range(min(count, len(clips)))]
    layers: list[list[torch.Tensor]] = [[] for _ in range(tokenizer.config.encoder_config.num_hidden_layers)]
    references = []
    batches = [(epoch, start) for epoch in range(crops) for start in range(0, len(indices), 8)]
    for epoch, start in tqdm(batches, desc=f"features {clips.split}", mininterval=10):
        clips.set_epoch(epoch)
        waveform = torch.stack([clips[i]["waveform"] for i in indices[start : start + 8]]).to(tokenizer.device)
        for layer, features in zip(layers, tokenizer(waveform).layers, strict=True):
            layer.append(features.half().cpu())
        references.append(spectral_frames(waveform, tokenizer.config.sample_rate, tokenizer.samples_per_token).cpu())
    styles = np.array([clips.rows[index].get("style") or "" for index in indices] * crops)
    return Described([torch.cat(layer) for layer in layers], torch.cat(references), styles)


def cluster(points: torch.Tensor, config: ClusterConfig, seed: int) -> torch.Tensor:
    """k-means centroids (C, H) of points (M, H)."""
    means = MiniBatchKMeans(
        config.num_centroids, batch_size=config.batch_size, max_iter=config.num_passes, n_init=1, random_state=seed
    )
    return torch.from_numpy(means.fit(points.numpy()).cluster_centers_).float()


def frame_map(points: torch.Tensor, references: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """(H, H) map after which squared distances are those of the weighted frames that the points (M, H) linearly tell.

    With A the least-squares map to the standardised frames and W the weights, |dx A W|^2 = dx (A W^2 A^T) dx^T, and
    the symmetric root of that matrix keeps the width at H instead of 213.
    """
    frames = (references - references.mean(0)) / references.std(0)
    gram = points.T @ points + 10.0 * torch.eye(points.shape[1])
    reading = torch.linalg.solve(gram, points.T @ frames) * weights  # (H, 213)
    values, vectors = torch.linalg.eigh(reading @ reading.T)
    return vectors * values.clamp_min(0).sqrt() @ vectors.T


def chroma(references: torch.Tensor) -> torch.Tensor:
    """Share of each pitch class, (..., P) to (..., 12), from the semitones of the references."""
    energy = (2.0 * references[..., SPECTRAL_SEMITONES]).exp().unflatten(-1, (6, 12)).sum(-2)
    return energy.sqrt() / energy.sqrt().sum(-1, keepdim=True)


def onsets(references: torch.Tensor) -> torch.Tensor:
    """(clips, S) bool: the spectrum rises more than in the neighbouring frames, and than twice the clip's median."""
    rise = references[..., SPECTRAL_ONSET]
    padded = torch.nn.functional.pad(rise, (1, 1))
    peak = (rise >= padded[:, :-2]) & (rise > padded[:, 2:])
    return peak & (rise > 2.0 * rise.median(dim=1, keepdim=True).values) & (rise > 0.1)


def linear_probe(
    tokens: torch.Tensor, values: torch.Tensor, test_tokens: torch.Tensor, size: int, context: int
) -> torch.Tensor:
    """Least-squares reading of `values` (clips, S, P) from the one-hot tokens of a frame and `context` on each side."""
    shifts = range(-context, context + 1)

    def design(indices: torch.Tensor) -> torch.Tensor:  # the columns that hold a one, (clips, S, shifts)
        return torch.stack([torch.roll(indices, shift, 1) + size * place for place, shift in enumerate(shifts)], dim=-1)

    width = size * len(shifts)
    columns, targets = design(tokens).flatten(0, 1), values.flatten(0, 1)
    offset = targets.mean(0)
    pairs = (columns[:, :, None] * width + columns[:, None, :]).flatten()
    gram = torch.bincount(pairs, minlength=width * width).view(width, width).double()
    moment = torch.zeros(width, targets.shape[1], dtype=torch.float64)
    for column in columns.unbind(1):
        moment.index_add_(0, column, (targets - offset).double())
    weights = torch.linalg.solve(gram + torch.eye(width), moment).float()  # ridge of one observation
    return weights[design(test_tokens)].sum(-2) + offset  # (clips, S, P)


def judge(
    tokens: torch.Tensor, train: Described, test_tokens: torch.Tensor, test: Described, size: int
) -> dict[str, float]:
    """What can be read from the tokens of the test clips by probes fitted to the others.

    For each frame from its own token, and, with "_context", from the two on either side as well: share of explained
    variance of chroma, of the log-mel spectrum and of the semitones, and average precision of onsets. For each clip its
    style, from how often each token occurs, where clips have one.
    """
    values, wanted = (
        torch.cat([frames[..., :SPECTRAL_ONSET], chroma(frames), onsets(frames)[..., None]], dim=-1)
        for frames in (train.references, test.references)
    )
    figures = {}
    if len(set(train.styles)) > 1:
        histograms = [one_hot(t, size).float().mean(1).sqrt().numpy() for t in (tokens, test_tokens)]
        classifier = LogisticRegression(C=30.0, max_iter=500).fit(histograms[0], train.styles)
        figures["style_accuracy"] = float((classifier.predict(histograms[1]) == test.styles).mean())
    spread = (wanted - wanted.mean((0, 1))).square().sum((0, 1))
    for context, suffix in ((0, ""), (2, "_context")):
        read = linear_probe(tokens, values, test_tokens, size, context)
        explained = 1.0 - (read - wanted).square().sum((0, 1)) / spread
        figures |= {
            f"chroma_r2{suffix}": float(explained[SPECTRAL_ONSET:-1].mean()),
            f"mel_r2{suffix}": float(explained[SPECTRAL_MEL].mean()),
            f"semitone_r2{suffix}": float(explained[SPECTRAL_SEMITONES].mean()),
            f"onset_ap{suffix}": float(average_precision_score(wanted[..., -1].flatten(), read[..., -1].flatten())),
        }
    frequencies = torch.bincount(test_tokens.flatten(), minlength=size) / test_tokens.numel()
    return figures | {"perplexity": float(torch.special.entr(frequencies).sum().exp())}


def plot(path: Path, table: dict[str, dict[str, float]]) -> None:
    """A PNG of the figures with context, one group of bars for each figure and one bar for each set of tokens."""
    figures = [name for name in next(iter(table.values())) if name.endswith("_context") or name == "style_accuracy"]
    figure = Figure(figsize=(8, 3), layout="constrained")
    ax = figure.subplots()
    width = 0.8 / len(table)
    for offset, (name, values) in enumerate(table.items()):
        ax.bar([i + offset * width for i in range(len(figures))], [values[f] for f in figures], 0.9 * width, label=name)
    titles = [name.removesuffix("_context").replace("_", "\n") for name in figures]
    ax.set_xticks([i + 0.4 - width / 2 for i in range(len(figures))], titles)
    ax.set_ylim(0, 1)
    figure.legend(loc="outside right")
    figure.savefig(path, dpi=80)


def main() -> None:
    args = parse_args(__doc__)
    config = load_config(args.config, {"data": DataConfig, "cluster": ClusterConfig, "run": RunConfig}, args.set)
    data, seed, size = config.data, config.run.seed, config.cluster.num_centroids
    device = default_device()
    tokenizer = SemanticTokenizer.from_pretrained(data.encoder, dtype=torch.float32).to(device).eval()
    rate = tokenizer.config.sample_rate
    clips = AudioClips(data.folder, "train", data.crop_seconds, rate, seed)
    tokens_of_clip = round(data.crop_seconds * tokenizer.token_rate)
    crops = -(-2 * size // (tokens_of_clip * min(len(clips), data.train_clips)))  # 1, but for very few clips
    train = describe(tokenizer, clips, data.train_clips, crops)
    # the layer is chosen by what these clips say: those of "test" judge the whole model, and may not choose any part
    heldout = AudioClips(data.folder, "validation", data.crop_seconds, rate, seed)
    test = describe(tokenizer, heldout, data.heldout_clips)
    spaces = {f"layer {i}": (train.layers[i - 1], test.layers[i - 1]) for i in config.cluster.feature_layers}
    spaces["log-mel"] = (train.references[..., SPECTRAL_MEL], test.references[..., SPECTRAL_MEL])

    weights = None
    if config.cluster.semitone_weight is not None:
        targets = torch.cat([train.references, chroma(train.references)], dim=-1).flatten(0, 1)
        weights = torch.ones(targets.shape[-1])
        weights[SPECTRAL_SEMITONES] = config.cluster.semitone_weight
        weights[SPECTRAL_ONSET] = config.cluster.onset_weight
        weights[SPECTRAL_ONSET + 1 :] = config.cluster.chroma_weight

    table, fitted = {}, {}
    for name, (points, test_points) in spaces.items():
        mean, std = points.float().mean((0, 1)), points.float().std((0, 1)).clamp_min(1e-4)
        points, test_points = (points.float() - mean) / std, (test_points.float() - mean) / std
        feature_map = torch.eye(points.shape[-1])
        if weights is not None and name != "log-mel":
            feature_map = frame_map(points.flatten(0, 1), targets, weights)
        points, test_points = points @ feature_map, test_points @ feature_map
        centroids = cluster(points.flatten(0, 1), config.cluster, seed)
        tokens, test_tokens = nearest(points, centroids), nearest(test_points, centroids)
        table[name] = judge(tokens, train, test_tokens, test, size)
        fitted[name] = {"feature_mean": mean, "feature_std": std, "feature_map": feature_map, "centroids": centroids}
        figures = ", ".join(f"{key} {value:.3f}" for key, value in table[name].items())
        print(f"{name}: {figures}", flush=True)

    judged_by = ("style_accuracy", "chroma_r2_context", "mel_r2_context", "onset_ap_context")
    best = max(
        (name for name in spaces if name != "log-mel"), key=lambda name: sum(table[name].get(k, 0.0) for k in judged_by)
    )
    layer, arguments = int(best.split()[1]), tokenizer.config.to_dict()
    arguments |= {"feature_layer": layer, "num_centroids": size, "weigh_features": weights is not None}
    if config.cluster.drop_upper_layers:
        arguments["encoder_config"]["num_hidden_layers"] = layer
    fitted_tokenizer = SemanticTokenizer(SemanticTokenizerConfig.from_dict(arguments))
    state = tokenizer.state_dict() | fitted[best]
    fitted_tokenizer.load_state_dict({name: state[name] for name in fitted_tokenizer.state_dict()})
    fitted_tokenizer.save_pretrained(config.run.output_dir)
    Path(config.run.output_dir, "probes.json").write_text(json.dumps({"chosen": best, **table}, indent=1) + "\n")
    plot(Path(config.run.output_dir, "probes.png"), table)
    print(f"semantic_tokenizer: {size} tokens from {best}")


if __name__ == "__main__":
    main()
