import itertools
import runpy
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, ClapAudioConfig, ClapConfig, ClapModel, ClapTextConfig, RobertaTokenizer

from melody_diffusers import MeLoDyPipeline, MuLanConfig, MuLanModel, ResidualQuantizer

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "conversion" / "mulan_from_clap.py"), run_name="conversion")
WORDS = ("slow fast calm loud soft bright dark", "rock jazz folk house", "piano flute drums harp", "solo duo")
TEXTS = [" ".join(words) for words in itertools.product(*(group.split() for group in WORDS))]  # 224
LETTERS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "Ġ", *"abcdefghijklmnopqrstuvwxyz"]


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A CLAP with random weights of the usual scale, its tokenizer, a MuLan to start from, and texts."""
    folder = tmp_path_factory.mktemp("clap")
    torch.manual_seed(0)
    text = ClapTextConfig(
        vocab_size=len(LETTERS),
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=42,
        projection_dim=24,
        layer_norm_eps=1e-5,
    )
    audio = ClapAudioConfig(
        patch_embeds_hidden_size=16,
        hidden_size=32,
        depths=[1, 1],
        num_hidden_layers=2,
        num_attention_heads=[1, 2],
        projection_dim=24,
        spec_size=32,
        num_mel_bins=16,
        window_size=2,
    )
    clap = ClapModel(ClapConfig(text_config=text.to_dict(), audio_config=audio.to_dict(), projection_dim=24)).eval()
    for parameter in clap.text_model.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.15)  # so that words, positions and attention matter
    clap.save_pretrained(folder / "clap")
    vocabulary = {letter: i for i, letter in enumerate(LETTERS)}
    RobertaTokenizer(vocab=vocabulary, merges=[], model_max_length=512).save_pretrained(folder / "clap")
    MuLanModel(
        MuLanConfig(
            audio_config={"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
            | {"max_length": 64, "num_mel_bins": 32},
            text_config={"vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1},
            projection_dim=16,
            mel_mean=-3.25,
            hop_length=480,
        )
    ).save_pretrained(folder / "mulan")
    (folder / "texts.txt").write_text("\n".join([*TEXTS, "", TEXTS[0]]))
    return folder


def convert(sources, out, **others):
    options = {
        "mulan": sources / "mulan",
        "clap": sources / "clap",
        "texts": sources / "texts.txt",
        "out": out,
    } | others
    SCRIPT["main"]([str(part) for name, value in options.items() for part in (f"--{name}", value)])
    return MuLanModel.from_pretrained(out)


@torch.no_grad()
def test_the_text_tower_is_claps_and_its_embeddings_come_near(sources, tmp_path, capsys):
    mulan = convert(sources, tmp_path)
    said = capsys.readouterr().out
    clap = ClapModel.from_pretrained(sources / "clap")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    assert tokenizer.model_max_length == 40  # two rows of the position table are padding's
    tokens = tokenizer(["slow", "bright house harp duo"], padding=True, return_tensors="pt")
    ids, mask = tokens["input_ids"], tokens["attention_mask"]
    assert (ids == 1).any() and (mask == 0).any()
    theirs = clap.get_text_features(ids, attention_mask=mask)
    ours = mulan.text_tower(ids, attention_mask=mask).last_hidden_state
    assert (ours - theirs.last_hidden_state)[mask.bool()].abs().max() < 1e-5
    # even the longest text that CLAP reads
    ids = torch.randint(5, len(LETTERS), (1, 40))
    longest = clap.get_text_features(ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    assert (mulan.text_tower(ids).last_hidden_state - longest).abs().max() < 1e-5

    embeds, targets, _ = (part for part in SCRIPT["encode"](mulan, clap_text(sources), tokenizer, TEXTS)[1:])
    assert torch.cosine_similarity(embeds, targets).mean() > 0.9
    nearest = (embeds @ targets.T).argmax(1)
    assert (nearest == torch.arange(len(TEXTS))).float().mean() > 0.5  # chance: 0.004
    held_out, other = (float(said.split(name)[1].split()[0].strip(",")) for name in ("CLAP's ", "another text "))
    assert held_out > other


def tokenizer_of_clap(sources):
    return AutoTokenizer.from_pretrained(sources / "clap")


def clap_text(sources):
    from transformers import ClapTextModelWithProjection

    return ClapTextModelWithProjection.from_pretrained(sources / "clap").eval()


def test_the_audio_side_is_the_given_mulans_and_the_space_claps(sources, tmp_path):
    mulan, start = convert(sources, tmp_path), MuLanModel.from_pretrained(sources / "mulan")
    for name, weight in start.audio_tower.state_dict().items():
        assert torch.equal(mulan.audio_tower.state_dict()[name], weight)
    assert mulan.config.projection_dim == 24
    assert mulan.config.mel_mean == -3.25 and mulan.config.hop_length == 480
    assert mulan.get_audio_features(torch.randn(1, 1, 24000)).shape == (1, 24)


def test_a_pipeline_takes_the_tokenizer(sources, tmp_path, tiny_components):
    mulan = convert(sources, tmp_path / "mulan")
    components = tiny_components | {
        "mulan": mulan,
        "tokenizer": AutoTokenizer.from_pretrained(tmp_path / "mulan" / "tokenizer"),
        "mulan_quantizer": ResidualQuantizer(3, 16, 24),
    }
    torch.nn.init.normal_(components["mulan_quantizer"].codebooks, std=0.2)
    MeLoDyPipeline(**components).save_pretrained(tmp_path / "pipeline")
    pipe = MeLoDyPipeline.from_pretrained(tmp_path / "pipeline")
    assert pipe.tokenizer("slow jazz")["input_ids"] == tokenizer_of_clap(sources)("slow jazz")["input_ids"]
    first, second = pipe.encode_prompt("slow jazz"), pipe.encode_prompt(["bright house harp duo", "slow jazz"])
    assert first.shape == (1, 3)
    assert torch.equal(first[0], second[1])


def test_too_few_texts_are_refused(sources, tmp_path):
    (tmp_path / "few.txt").write_text("one text\n" * 30)
    with pytest.raises(ValueError, match="at least 20 different texts.*holds 1"):
        convert(sources, tmp_path / "out", texts=tmp_path / "few.txt")


def test_a_difference_beyond_the_tolerance_ends_the_script(sources, tmp_path):
    with pytest.raises(SystemExit, match="differs from its source"):
        convert(sources, tmp_path / "out", tolerance=-1)
