import json
import math

import pytest
import torch
from torch import nn

from melody_diffusers.conversion_utils import COMPONENTS, compare, component_class, difference, trial_outputs

# no part of any output: the loss's, what only masking uses, what nothing uses, and a bias that softmax takes away
SILENT = ("logit_scale", "masked_spec_embed", "pos_conv_embed", "k_proj.bias", "key.bias", "linear_k.bias")


def test_the_trial_is_repeatable_and_every_weight_takes_part(tiny_components):
    models = {name: model for name, model in tiny_components.items() if isinstance(model, nn.Module)}
    assert {type(model) for model in models.values()} == set(COMPONENTS)
    for name, model in models.items():
        if name == "mulan_quantizer":
            model.codebooks.requires_grad_()
        outputs = trial_outputs.__wrapped__(model)  # with gradients
        assert difference(trial_outputs(model), outputs) == (0.0, 0.0)
        torch.stack([(output * torch.randn_like(output)).sum() for output in outputs]).sum().backward()
        for key, weight in model.named_parameters():
            if not any(part in key for part in SILENT):
                assert weight.grad is not None and weight.grad.abs().max() > 0, f"{name}: {key}"
    assert models["mulan_quantizer"].codebooks.grad.abs().amax(-1).gt(0).float().mean() > 0.9


def test_differences_of_known_numbers(capsys):
    three_four = [torch.tensor([3.0, 4.0]), torch.tensor([1.0])]
    assert difference([torch.tensor([3.0, 4.5]), torch.tensor([1.0])], three_four) == pytest.approx((0.5, 0.1))
    assert all(math.isnan(value) for value in difference([torch.tensor([3.0, math.inf]), three_four[1]], three_four))
    with pytest.raises(ValueError, match=r"\(3,\)"):
        difference([torch.ones(3)], [torch.ones(2)])
    compare("it", three_four, three_four, 0.0)
    assert "it: largest difference 0.00e+00" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="0.05"):
        compare("it", [torch.tensor([3.0, 4.5])], [torch.tensor([3.0, 4.0])], 0.05)


def test_a_folder_says_what_it_holds(tiny_components, tmp_path):
    for name in ("vae", "dual_path"):
        tiny_components[name].save_pretrained(tmp_path / name)
        assert component_class(tmp_path / name) is type(tiny_components[name])
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    with pytest.raises(ValueError, match="one of AudioVAEGAN.*it names LlamaForCausalLM"):
        component_class(tmp_path)
    with pytest.raises(ValueError, match="there is none"):
        component_class(tmp_path / "nothing")
