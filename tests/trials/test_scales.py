"""Scales, adapters and masks of less usual names: the weight that they make, or a reason that names them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trials.written import written_weights

FP8 = torch.float8_e4m3fn
W = torch.randn(64, 48, generator=torch.Generator().manual_seed(0))
S = W.abs().amax() / 448
CODES = (W / S).to(FP8)
INT8 = torch.randint(-127, 128, (64, 48), dtype=torch.int8, generator=torch.Generator().manual_seed(0))
ROWS = torch.rand(64, 1, generator=torch.Generator().manual_seed(1)) * 0.01
A, B = torch.randn(4, 48), torch.randn(64, 4)
MASK = W > 0


def only(folder, state):
    torch.save(state, folder / "m.pt")
    [(name, one)] = [(name, one) for name, one in written_weights(folder / "m.pt").items() if len(one.shape) >= 2]
    assert name.endswith("fc.weight")
    return one


@pytest.mark.parametrize("state, expected", [
    *[({"fc.weight": CODES, f"fc{word}": S.reshape(1)}, CODES.float() * S)
      for word in (".weight.scale", "_scale", ".dequant", ".weight_s", "_scale_inv",
                   ".weight.scale_inv")],
    ({"model": {"fc.weight": CODES}, "scales": {"fc.weight": S}}, CODES.float() * S),
    ({"model": {"fc.weight": INT8}, "scales": {"fc.weight": ROWS}}, INT8.float() * ROWS),
    ({"model": {"fc.weight": INT8}, "scales": {"fc": ROWS}}, INT8.float() * ROWS),
    ({"fc.weight": INT8, "fc.weight.scale": ROWS}, INT8.float() * ROWS),
    ({"fc.weight": INT8, "fc_scale": ROWS.reshape(64)}, INT8.float() * ROWS),
    ({"fc.weight": CODES}, CODES.float()),
    ({"fc.weight": W, "fc.lora.A": A, "fc.lora.B": B, "fc.alpha": torch.tensor(8.0)}, W + 2 * B @ A),
    ({"fc.weight": W, "fc.A": A, "fc.B": B, "fc.scaling": torch.tensor([3.0])}, W + 3 * B @ A),
    *[({"fc.weight": W, f"fc.{name}": mask}, W * MASK) for name in ("mask", "weight_mask")
      for mask in (MASK, MASK.float(), MASK.byte())]])
def test_the_weight_in_use(tmp_path, state, expected):
    one = only(tmp_path, state)
    assert one.made and not one.trouble
    found, right = (np.linalg.svd(w.double().numpy(), compute_uv=False) for w in (one.load(), expected))
    np.testing.assert_allclose(found, right, rtol=1e-5)


@pytest.mark.parametrize("state, why", [
    ({"fc.weight": CODES, "fc.weight_amax": S}, "beside fc.weight_amax, whose convention is not known"),
    ({"fc.weight": CODES, "fc.weight:scale": S}, "beside weight:scale"),
    ({"fc.weight": CODES, "fc.weight.scale": S, "fc.weight.zero_point": S},
     "fc.weight.scale and fc.weight.zero_point"),
    ({"fc.weight": CODES, "fc.weight.scale": S, "fc_scale": S}, "fc.weight.scale and fc_scale"),
    ({"fc.weight": CODES, "fc.weight.scale": torch.ones(7)}, "does not fit"),
    ({"fc.weight": CODES, "fc.scale": S}, "beside scale"),
    ({"fc.weight": CODES, "fc.weight_inv_scale": S}, "inv_scale"),
    ({"fc.weight": W, "fc.lora.A": A, "fc.lora.B": B}, "scaling is not in the file"),
    ({"fc.weight": W, "fc.A": A, "fc.B": B}, "scaling is not in the file")])
def test_a_doubt_is_a_reason(tmp_path, state, why):
    one = only(tmp_path, state)
    assert why in one.trouble and not one.made


def test_what_is_no_mask_and_no_adapter_stays(tmp_path):
    state = {"fc.weight": W, "fc.mask": W + 1, "g.A": A, "g.B": B, "h.weight": W, "h.A": B, "h.B": A}
    torch.save(state, tmp_path / "m.pt")
    assert list(written_weights(tmp_path / "m.pt")) == list(state)
