import dataclasses
import io
import json
import os
import string
import subprocess
import sys

import datasets
import numpy as np
import pytest
import soundfile
import torch
from datasets import Features, List, Value
from transformers import BertTokenizerFast

from melody_diffusers import cli
from melody_diffusers.audio import repeat_to
from melody_diffusers.data.datasets import AudioClips, EncodedClips
from melody_diffusers.data.encode import ClipEncoder, encode_dataset
from melody_diffusers.models.audio_vae import AudioVAEGAN, AudioVAEGANConfig
from melody_diffusers.models.mulan import MuLanConfig, MuLanModel
from melody_diffusers.models.residual_quantizer import ResidualQuantizer
from melody_diffusers.models.semantic_tokenizer import SemanticTokenizer, SemanticTokenizerConfig

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    torch.manual_seed(0)
    vae = AudioVAEGAN(
        AudioVAEGANConfig(
            head="istft", latent_dim=4, istft_width=16, istft_encoder_layers=1, istft_decoder_layers=1, istft_hop=480
        )
    )
    ast = {"num_mel_bins": 16, "max_length": 32, "patch_size": 16, "time_stride": 16, "frequency_stride": 16}
    bert = {"vocab_size": 64, "max_position_embeddings": 24}
    mulan = MuLanModel(
        MuLanConfig(audio_config=SMALL | ast, text_config=SMALL | bert, projection_dim=8, hop_length=960)
    )
    quantizer = ResidualQuantizer(3, 16, 8)
    quantizer.codebooks.normal_()
    conformer = {
        "conv_dim": [8, 8, 8],
        "conv_stride": [8, 12, 10],
        "conv_kernel": [8, 12, 10],
        "feat_extract_norm": "layer",
        "conv_depthwise_kernel_size": 3,
        "position_embeddings_type": "rotary",
    }
    semantic = SemanticTokenizer(
        SemanticTokenizerConfig(encoder_config=SMALL | conformer, feature_layer=1, num_centroids=16)
    )
    semantic.centroids.normal_()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *string.ascii_lowercase]
    words += [f"##{letter}" for letter in string.ascii_lowercase]
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer = BertTokenizerFast(vocab={word: i for i, word in enumerate(words)}, model_max_length=64)
    tokenizer.save_pretrained(folder)
    return ClipEncoder(vae, mulan, quantizer, semantic, tokenizer, window_seconds=1.0, window_stride_seconds=0.25)


@pytest.fixture
def folder(tmp_path):
    """Seven clips of two lengths, one of them shorter than a window."""
    random = np.random.default_rng(0)
    rows = []
    for index, seconds in enumerate((2.0, 2.0, 2.0, 0.61, 2.0, 2.0, 2.0)):
        buffer = io.BytesIO()
        soundfile.write(buffer, random.uniform(-0.5, 0.5, round(24000 * seconds)), 24000, format="FLAC")
        rows.append(
            {
                "audio": {"bytes": buffer.getvalue(), "path": f"{index}.flac"},
                "captions": ["ab c", "de", "fgh"][: index % 4],
                "style": f"style {index}",
            }
        )
    features = Features(
        {
            "audio": {"bytes": Value("binary"), "path": Value("string")},
            "captions": List(Value("string")),
            "style": Value("string"),
        }
    )
    folder = tmp_path / "set"
    folder.mkdir()
    dataset = datasets.Dataset.from_list(rows, features=features).cast_column("audio", datasets.Audio())
    dataset.to_parquet(folder / "train-00000-of-00001.parquet")
    return folder


def table(folder):
    rows = []
    for row in datasets.load_from_disk(str(folder)).with_format("numpy"):
        rows.append({key: np.asarray(value).tolist() for key, value in row.items()})
    return rows


def test_codes_are_those_of_the_components(encoder, folder, tmp_path):
    encode_dataset(folder, encoder, tmp_path / "out", batch_size=4, rows_per_part=3)
    encoded, clips = EncodedClips(tmp_path / "out", "train", num_tokens=None), AudioClips(folder, "train", None)
    assert encoded.timebase.hop_samples == 480 and encoded.timebase.token_rate == 25
    rows = table(tmp_path / "out" / "train")
    for index in range(len(clips)):
        waveform = repeat_to(clips.clip(index), 24000)[None]  # a shorter clip is a loop
        with torch.inference_mode():
            latents = encoder.vae.encode(waveform).latent_dist.mode()[0]
            tokens = encoder.semantic_tokenizer.encode(waveform)[0]
            starts = range(0, max(1, waveform.shape[-1] - 24000 + 1), 6000)
            heard = [encoder.mulan.get_audio_features(waveform[..., s : s + 24000]) for s in starts]
            texts = [
                encoder.tokenizer([text], return_tensors="pt", padding="max_length", max_length=24)
                for text in clips.rows[index]["captions"]
            ]
            read = [encoder.mulan.get_text_features(text.input_ids, text.attention_mask) for text in texts]
        whole = len(latents) // 2  # tokens with both of their frames
        assert torch.allclose(encoded[index]["latents"], latents[: 2 * whole], atol=2e-3)
        assert torch.equal(encoded[index]["semantic_tokens"], tokens[:whole])
        assert rows[index]["semantic_tokens"] == tokens.tolist() and len(rows[index]["latents"]) == len(latents)
        assert len(tokens) == -(-waveform.shape[-1] // 960) and len(latents) == -(-waveform.shape[-1] // 480)
        assert rows[index]["mulan_tokens_audio"] == [encoder.mulan_quantizer.encode(e)[0].tolist() for e in heard]
        assert rows[index]["mulan_tokens_text"] == [encoder.mulan_quantizer.encode(e)[0].tolist() for e in read]
        assert rows[index]["style"] == f"style {index}" and "audio" not in rows[index]
    assert [len(row["mulan_tokens_audio"]) for row in rows] == [5, 5, 5, 1, 5, 5, 5]


def test_clips_without_captions_are_conditioned_on_their_sound(encoder, folder, tmp_path):
    dataset = datasets.load_dataset(str(folder), split="train").cast_column("audio", datasets.Audio(decode=False))
    (tmp_path / "bare").mkdir()
    dataset.select_columns("audio").to_parquet(tmp_path / "bare" / "train-00000-of-00001.parquet")
    encode_dataset(tmp_path / "bare", encoder, tmp_path / "out")
    clips = EncodedClips(tmp_path / "out", "train", num_tokens=10, text_share=1.0)
    windows = [row["mulan_tokens_audio"] for row in table(tmp_path / "out" / "train")]
    assert len(clips) == 7 and all(clips[i]["mulan_tokens"].tolist() in windows[i] for i in range(7))


def test_tag_lists_are_encoded_beside_the_captions(encoder, folder, tmp_path):
    encoder = dataclasses.replace(encoder, tag_lists=2)
    encode_dataset(folder, encoder, tmp_path / "out")
    for row in table(tmp_path / "out" / "train"):
        texts = [*row["captions"], row["style"], row["style"]]  # with one tag there is one order
        assert row["mulan_tokens_text"] == encoder.encode_texts(texts).tolist()
    with pytest.raises(ValueError, match="tag_lists must be at least 0, got -1"):
        dataclasses.replace(encoder, tag_lists=-1)


def test_codes_do_not_depend_on_batches_and_parts(encoder, folder, tmp_path):
    encode_dataset(folder, encoder, tmp_path / "a", batch_size=1, rows_per_part=100)
    encode_dataset(folder, encoder, tmp_path / "b", batch_size=5, rows_per_part=4)
    for one, other in zip(table(tmp_path / "a" / "train"), table(tmp_path / "b" / "train"), strict=True):
        assert np.allclose(one.pop("latents"), other.pop("latents"), atol=2e-3)
        assert one == other


def test_a_stopped_run_goes_on_and_a_finished_one_stays(encoder, folder, tmp_path, monkeypatch, capsys):
    whole = ClipEncoder.encode_rows
    visited = []

    def interrupted(self, clips, rows, batch_size):
        visited.append(rows.start)
        if len(visited) == 3:
            raise KeyboardInterrupt
        yield from whole(self, clips, rows, batch_size)

    monkeypatch.setattr(ClipEncoder, "encode_rows", interrupted)
    with pytest.raises(KeyboardInterrupt):
        encode_dataset(folder, encoder, tmp_path / "out", rows_per_part=2)
    assert not (tmp_path / "out" / "train").exists()
    encode_dataset(folder, encoder, tmp_path / "out", rows_per_part=2)
    assert visited == [0, 2, 4, 4, 6]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["encoding.json", "train"]
    assert "h per hour" in capsys.readouterr().out
    encode_dataset(folder, encoder, tmp_path / "out", rows_per_part=2)
    assert visited == [0, 2, 4, 4, 6] and "encoded already" in capsys.readouterr().out


def test_other_weights_start_over(encoder, folder, tmp_path):
    encode_dataset(folder, encoder, tmp_path / "out")
    before, settings = table(tmp_path / "out" / "train"), (tmp_path / "out" / "encoding.json").read_text()
    kept = encoder.mulan_quantizer.codebooks.clone()
    try:
        encoder.mulan_quantizer.codebooks.copy_(kept.flip(1))
        encode_dataset(folder, encoder, tmp_path / "out")
    finally:
        encoder.mulan_quantizer.codebooks.copy_(kept)
    after = table(tmp_path / "out" / "train")
    for one, other in zip(before, after, strict=True):
        assert other["mulan_tokens_audio"] == (15 - np.array(one["mulan_tokens_audio"])).tolist()
        assert other["semantic_tokens"] == one["semantic_tokens"]
    changed = json.loads((tmp_path / "out" / "encoding.json").read_text())["components"]
    assert {name for name, digest in json.loads(settings)["components"].items() if digest != changed[name]} == {
        "mulan_quantizer"
    }


def test_bad_settings_are_named(encoder, folder, tmp_path):
    with pytest.raises(ValueError, match="batch_size"):
        encode_dataset(folder, encoder, tmp_path / "out", batch_size=0)
    parts = (encoder.vae, encoder.mulan, encoder.mulan_quantizer, encoder.semantic_tokenizer, encoder.tokenizer)
    with pytest.raises(ValueError, match="window_seconds must be above 0, got -1"):
        ClipEncoder(*parts, window_seconds=-1)


def test_the_command_with_every_flag_and_two_processes_give_the_same(tiny_folder, folder, tmp_path, capsys):
    flags = ["--model", tiny_folder, "--data", folder, "--splits", "train", "--batch-size", 4, "--rows-per-part", 2]
    flags += ["--window-seconds", 1, "--window-stride-seconds", 0.5, "--mixed-precision", "no", "--device", "cpu"]
    flags = [str(flag) for flag in flags]
    assert cli.main(["data", "encode", *flags, "--out", str(tmp_path / "one")]) == 0
    assert "train: 7 clips" in capsys.readouterr().out
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += ["-m", "melody_diffusers.cli", "data", "encode", *flags, "--out", str(tmp_path / "two")]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, capture_output=True, text=True, timeout=200, env=environment)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("train: 7 clips") == 1 and "h per hour" in run.stdout  # the first one speaks for both
    assert cli.main(["data", "encode", *flags, "--out", str(tmp_path / "two")]) == 0
    assert "encoded already" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == ["encoding.json", "train"]
    for one, other in zip(table(tmp_path / "one" / "train"), table(tmp_path / "two" / "train"), strict=True):
        assert np.allclose(one.pop("latents"), other.pop("latents"), atol=2e-3)
        assert one == other


def test_an_output_within_the_data_set_is_refused(encoder, folder):
    with pytest.raises(ValueError, match="lies within"):
        encode_dataset(folder, encoder, folder / "encoded")
    assert not (folder / "encoded").exists()
