"""The encoder's batch normalisation is settled on unmasked audio, of whichever kind it is."""

import runpy
from pathlib import Path

import pytest
import torch
from torch import nn

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "training" / "train_semantic_encoder.py"))


class Clips(list):
    def __getitem__(self, index):
        return {"waveform": super().__getitem__(index)}


@pytest.mark.parametrize("convert", [lambda model: model, nn.SyncBatchNorm.convert_sync_batchnorm])
def test_statistics_are_plain_means_of_what_is_heard(make_components, convert):
    generator = torch.Generator().manual_seed(0)
    clips = Clips(torch.randn(8, 1, 24000, generator=generator))
    tokenizer = convert(make_components()["semantic_tokenizer"])
    tokenizer.config.encoder_config.layerdrop = 0.0  # or else some layers hear fewer batches
    norms = [module for module in tokenizer.modules() if hasattr(module, "running_mean")]
    assert norms
    heard = []
    norms[0].register_forward_hook(lambda module, inputs, output: heard.append(inputs[0].detach()))
    for norm in norms:
        norm.running_mean.fill_(100.0)  # of masked audio
    SCRIPT["settle_batch_norm"](tokenizer, clips, batch_size=2)
    means = torch.stack([x.mean(dim=(0, 2)) for x in heard]).mean(0)  # (batches, channels) -> (channels,)
    torch.testing.assert_close(norms[0].running_mean, means)
    assert len(heard) == 4 and not tokenizer.training
