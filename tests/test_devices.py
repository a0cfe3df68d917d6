import time

import pytest
import torch

from melody_diffusers import devices

CPU = torch.device("cpu")


@pytest.mark.parametrize(("slowed", "chosen"), [(torch.float32, torch.bfloat16), (torch.bfloat16, torch.float32)])
def test_bfloat16_is_taken_where_its_products_are_faster(monkeypatch, slowed, chosen):
    def multiply(a, b):
        time.sleep(0.004 if a.dtype == slowed else 0.001)

    monkeypatch.setattr(torch, "mm", multiply)
    devices.multiplies_bfloat16_faster.cache_clear()
    dtypes = devices.fast_dtypes(CPU)
    devices.multiplies_bfloat16_faster.cache_clear()
    assert dtypes == {"semantic_lm": torch.float32, "mulan": torch.float32, "default": chosen}
