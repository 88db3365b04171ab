"""Random streams: known answers, distributions, independence, and the same numbers in a pack."""

import pytest
import torch
from scipy import stats
from torch.func import vmap

from trials.streams import Stream, derive, generator

F64 = torch.float64


def test_bits_are_splitmix64():
    """The published test sequence of SplitMix64 for seed 1234567."""
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431,
                 16408922859458223821]
    assert [n % 2**64 for n in Stream(torch.tensor(1234567)).bits((5,)).tolist()] == published


def test_pinned():
    """Results of old trials can be reproduced only while these stay."""
    assert derive(0, "init") == 7468557602497862914
    assert derive(7, "knob.dropout", 3) == -8907541957921796349
    stream = Stream.of(0, "pinned")
    assert stream.at(5).bits((2,)).tolist() == [-9199316696497994235, 271438963031790301]
    assert stream.uniform((3,), F64).tolist() == [0.43781793381037726, 0.546591781530554, 0.32769790636608753]
    assert stream.uniform((3,)).tolist() == [0.4378179907798767, 0.5465918183326721, 0.3276979327201843]
    assert stream.normal((3,), F64).tolist() == pytest.approx(
        [-0.15650387176726352, 0.11705504084674906, -0.44627887658539017], rel=1e-13)  # erfinv is the platform's
    assert torch.randint(1 << 30, (2,), generator=generator(0, "pinned", 1)).tolist() == [323857641, 775170956]


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_uniform(dtype):
    u = Stream.of(3, "uniform").uniform((300, 500), dtype)
    assert u.shape == (300, 500) and u.dtype == dtype
    assert stats.kstest(u.flatten().double(), "uniform").pvalue > 0.01
    counts = torch.histc(u.double(), 1000, 0, 1)
    assert stats.chisquare(counts).pvalue > 0.01


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_normal(dtype):
    z = Stream.of(3, "normal").normal((300, 500), dtype)
    assert z.shape == (300, 500) and z.dtype == dtype
    assert stats.kstest(z.flatten().double(), "norm").pvalue > 0.01
    expected = 150_000 * 2 * stats.norm.sf(3)
    assert abs((z.abs() > 3).sum().item() - expected) < 5 * expected**0.5


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("bits", [0, -1])
def test_extreme_bits_stay_inside_the_open_interval(monkeypatch, dtype, bits):
    monkeypatch.setattr(Stream, "bits", lambda self, shape: torch.full(shape, bits))
    u = Stream.of(0, "x").uniform((1,), dtype)
    assert 0 < u.item() < 1
    assert 8 < Stream.of(0, "x").normal((1,), dtype).abs().item() < 9


def test_each_bit_is_fair():
    n = 20_000
    bits = Stream.of(1, "bits").bits((n,))
    ones = torch.stack([(bits >> i) & 1 for i in range(64)]).sum(1)
    assert (ones - n / 2).abs().max().item() < 5 * (n / 4) ** 0.5


def test_streams_are_independent():
    """Neighbouring seeds, purposes, steps, sites and positions are uncorrelated."""
    n = 20_000
    base = Stream.of(0, "a")
    streams = [base, Stream.of(1, "a"), Stream.of(0, "b"), Stream.of(0, "knob.dropout"), base.at(0), base.at(1),
               base.at(2), base.at(0).at(0), base.at(0).at(1), base.at(1).at(0), Stream.of(0, "b").at(1)]
    u = torch.stack([stream.uniform((n,), F64) for stream in streams])
    u = torch.cat([u, u[:1].roll(1, dims=1), u[:1].roll(2, dims=1)])
    off_diagonal = torch.corrcoef(u) - torch.eye(len(u))
    assert off_diagonal.abs().max().item() < 5 * n**-0.5


def test_first_numbers_of_many_steps_are_independent():
    """Across steps, what a knob draws at one position is itself a uniform, uncorrelated sequence."""
    steps = torch.arange(20_000)
    first = vmap(lambda step: Stream.of(0, "knob.dropout").at(step).at(0).uniform((2,), F64))(steps)
    assert stats.kstest(first[:, 0], "uniform").pvalue > 0.01
    sequences = torch.stack([first[:-1, 0], first[1:, 0], first[:-1, 1]])
    assert (torch.corrcoef(sequences) - torch.eye(3)).abs().max().item() < 5 * len(steps) ** -0.5


def test_no_two_keys_are_equal():
    keys = [Stream.of(seed, purpose).at(step).at(site).key.item()
            for seed in range(5) for purpose in ("a", "b", "init") for step in range(20) for site in range(5)]
    assert len(set(keys)) == len(keys) == 1500


def test_same_alone_and_in_a_pack():
    streams = [Stream.of(seed, "knob.dropout") for seed in range(4)]
    keys = torch.stack([stream.key for stream in streams])

    def draw(stream):
        site = stream.at(7).at(2)
        return site.bits((5, 3)), site.uniform((5, 3)), site.normal((5, 3), F64)

    packed = vmap(lambda key: draw(Stream(key)))(keys)
    for lane, stream in enumerate(streams):
        for together, alone in zip(packed, draw(stream), strict=True):
            assert torch.equal(together[lane], alone)


def test_lanes_may_be_at_different_steps():
    stream, steps = Stream.of(0, "a"), torch.tensor([3, 9])
    packed = vmap(lambda step: stream.at(step).bits((2,)))(steps)
    assert torch.equal(packed, torch.stack([stream.at(3).bits((2,)), stream.at(9).bits((2,))]))


def test_shape_does_not_change_the_numbers():
    stream = Stream.of(0, "a")
    assert torch.equal(stream.bits((2, 3)).flatten(), stream.bits((8,))[:6])


def test_generators_differ_by_seed_purpose_and_counter():
    first = [torch.rand(1, generator=generator(*args)).item()
             for args in [(0, "a"), (1, "a"), (0, "b"), (0, "a", 0), (0, "a", 1), (0, "a")]]
    assert first[0] == first[-1] and len(set(first)) == 5
