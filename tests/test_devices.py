import sys
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


@pytest.mark.parametrize("is_installed", [True, False])
def test_a_numba_that_does_not_work_is_told_of_and_none_is_not(monkeypatch, caplog, is_installed):
    monkeypatch.setitem(sys.modules, "numba", None)  # an import is an ImportError
    monkeypatch.setattr(devices, "find_spec", lambda name: object() if is_installed else None)
    devices.has_numba.cache_clear()
    try:
        assert not devices.has_numba() and ("numba cannot be imported" in caplog.text) == is_installed
    finally:
        devices.has_numba.cache_clear()
