"""Tasks: what the data are, that they are always the same, and known answers."""

import subprocess
import sys
from dataclasses import fields

import pytest
import torch

from trials.errors import UserError
from trials.fields import parse
from trials.optimizers.base import OPTIMIZERS
from trials.streams import Stream
from trials.tasks import digits, gaussian_regression, modular_addition
from trials.tasks.base import TASKS
from trials.tasks.gaussian_regression import true_weights

F64 = torch.float64


def make(name, **params):
    return parse(TASKS.get(name, "here"), params, "here")


@pytest.mark.parametrize("name", TASKS.classes)
def test_every_task(name):
    task = make(name)
    data = task.data()
    assert TASKS.classes[name].__doc__ and all(field.metadata["help"] for field in fields(task))
    assert task.train_size == len(data.x_train) == len(data.y_train)
    assert len(data.x_test) == len(data.y_test) > 0
    assert data.dtype == F64 and torch.isfinite(data.x_train).all() and torch.isfinite(data.x_test).all()
    if data.classes is not None:
        assert data.y_train.dtype == torch.int64 and data.y_train.ndim == 1
        assert set(data.y_train.tolist()) <= set(range(data.classes))
        assert data.outputs == data.classes
    moved = data.to("cpu", torch.float32)
    assert moved.dtype == torch.float32 and moved.input_shape == data.input_shape
    assert data.loss(torch.zeros(3, data.outputs, dtype=F64), data.target(data.y_train[:3])).shape == (3,)


@pytest.mark.parametrize("module", [digits, gaussian_regression, modular_addition])
def test_cached_and_deterministic(module):
    name = module.__name__.rpartition(".")[2]
    mine, theirs = make(name).data(), make(name).data()
    mine.x_train.zero_()  # what is handed out is a copy: a task of one's own may build on it
    assert torch.equal(make(name).data().x_train, theirs.x_train) and bool(theirs.x_train.any())
    again = module._data.__wrapped__(make(name))
    for part in ("x_train", "y_train", "x_test", "y_test"):
        assert torch.equal(getattr(again, part), getattr(make(name).data(), part))


def test_scikit_learn_is_not_imported():
    """It takes a second, in every worker."""
    script = ("import sys; from trials.tasks.base import TASKS; TASKS.classes['digits']().data(); "
              "assert 'sklearn' not in sys.modules")
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_digits():
    data = make("digits").data()
    assert data.x_train.shape == (1347, 1, 8, 8) and data.x_test.shape == (450, 1, 8, 8) and data.classes == 10
    assert data.x_train.mean().item() == pytest.approx(0, abs=1e-12)
    assert data.x_train.std(correction=0).item() == pytest.approx(1, abs=1e-12)
    levels = data.x_train.unique()  # 17 grey levels, equally far apart, shared with the test set
    assert len(levels) == 17 and torch.allclose(levels.diff(), levels.diff()[0])
    assert set(data.x_test.unique().tolist()) <= set(levels.tolist())
    train, test = torch.bincount(data.y_train), torch.bincount(data.y_test)
    assert (train + test).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert (test - (train + test) * 450 / 1797).abs().max() < 1


def test_digits_split():
    """Other splits move images between training and testing; none is lost."""
    first, second = make("digits").data(), make("digits", split_seed=1).data()
    assert not torch.equal(first.y_test, second.y_test)
    from sklearn.datasets import load_digits
    total = load_digits().data.sum()
    for data in (first, second):
        level = data.x_train.unique()
        pixels = [((x - level[0]) / (level[1] - level[0])).sum() for x in (data.x_train, data.x_test)]
        assert sum(pixels).item() == pytest.approx(total, rel=1e-10)


def test_gaussian_regression():
    task = make("gaussian_regression", dim=20, samples=5000, noise=0.5)
    data, w = task.data(), true_weights(task)
    assert w.norm().item() == pytest.approx(1, abs=1e-12)
    assert data.x_train.shape == (5000, 20) and data.y_train.shape == (5000, 1) and data.classes is None
    covariance = data.x_train.T @ data.x_train / 5000
    assert (covariance - torch.eye(20)).abs().max() < 5 * (2 / 5000) ** 0.5
    residual = data.y_train[:, 0] - data.x_train @ w
    assert residual.std().item() == pytest.approx(0.5, abs=5 * 0.5 / 10_000**0.5)
    assert (data.x_train.T @ residual / 5000).abs().max() < 5 * 0.5 / 5000**0.5
    fit = torch.linalg.lstsq(data.x_train, data.y_train).solution[:, 0]
    assert (fit - w).norm() < 2 * 0.5 * (20 / 5000) ** 0.5


def test_gaussian_regression_without_noise_is_exact():
    task = make("gaussian_regression")
    data, w = task.data(), true_weights(task)
    for x, y in ((data.x_train, data.y_train), (data.x_test, data.y_test)):
        assert torch.allclose(x @ w[:, None], y, atol=1e-12)
    assert data.fresh is None and task.train_size == 1000
    assert not torch.equal(data.x_train[:10], data.x_test[:10])
    assert not torch.equal(true_weights(make("gaussian_regression", data_seed=1)), w)


def test_fresh_batches():
    task = make("gaussian_regression", fresh=True, dim=3, noise=0.1)
    assert task.train_size is None
    draw, stream = task.data().to("cpu", torch.float32).fresh, Stream.of(0, "data")
    x, y = draw(stream.at(0), 8)
    assert x.shape == (8, 3) and y.shape == (8, 1) and x.dtype == y.dtype == torch.float32
    assert torch.equal(x, draw(stream.at(0), 8)[0]) and not torch.equal(x, draw(stream.at(1), 8)[0])
    noise = torch.cat([y[:, 0] - x @ true_weights(task).float()
                       for x, y in (draw(stream.at(step), 100) for step in range(50))])
    assert noise.std().item() == pytest.approx(0.1, abs=5 * 0.1 / 10_000**0.5)
    keys = torch.stack([Stream.of(seed, "data").at(4).key for seed in range(3)])
    packed_x, packed_y = torch.func.vmap(lambda key: draw(Stream(key), 8))(keys)
    for lane in range(3):
        alone_x, alone_y = draw(Stream.of(lane, "data").at(4), 8)
        assert torch.equal(packed_x[lane], alone_x) and torch.allclose(packed_y[lane], alone_y, atol=1e-6)


@pytest.mark.parametrize(("batch_size", "lr"), [(1, 0.05), (4, 0.2), (64, 1.0)])
def test_sgd_on_fresh_samples_contracts_as_the_formula_says(batch_size, lr):
    """E norm(w - w*)^2 shrinks by 1 - 2 lr + lr^2 (1 + (d + 1) / B) a step."""
    dim, steps = 10, 4000
    task = make("gaussian_regression", fresh=True, dim=dim)
    draw, w_star = task.data().fresh, true_weights(task)
    sgd = OPTIMIZERS.classes["sgd"](lr=lr)
    ratios = torch.empty(steps, dtype=F64)
    for step in range(steps):
        w = {"w": w_star + torch.eye(dim, dtype=F64)[step % dim]}
        x, y = draw(Stream.of(0, "data").at(step), batch_size)
        grads = {"w": x.T @ (x @ w["w"] - y[:, 0]) / batch_size}
        sgd.update(w, grads, sgd.init(w))
        ratios[step] = (w["w"] - w_star).square().sum()
    error = ratios.std().item() / steps**0.5
    expected = 1 - 2 * lr + lr**2 * (1 + (dim + 1) / batch_size)
    assert error < 0.02 and ratios.mean().item() == pytest.approx(expected, abs=4 * error)


def test_modular_addition():
    task = make("modular_addition", modulus=7, fraction=0.3)
    data = task.data()
    assert task.train_size == round(0.3 * 49) == 15 and data.classes == 7 and data.input_shape == (14,)
    x, y = torch.cat([data.x_train, data.x_test]), torch.cat([data.y_train, data.y_test])
    assert torch.equal(x.sum(1), torch.full((49,), 2.0, dtype=F64)) and set(x.unique().tolist()) == {0, 1}
    pairs = [(row[:7].argmax().item(), row[7:].argmax().item()) for row in x]
    assert sorted(pairs) == [(a, b) for a in range(7) for b in range(7)]
    assert y.tolist() == [(a + b) % 7 for a, b in pairs]
    other = make("modular_addition", modulus=7, fraction=0.3, data_seed=1).data()
    assert not torch.equal(data.x_train, other.x_train)


def test_modular_addition_larger_fractions_contain_the_smaller():
    small, large = (make("modular_addition", fraction=fraction).data() for fraction in (0.2, 0.6))
    assert torch.equal(large.x_train[: len(small.x_train)], small.x_train)


@pytest.mark.parametrize(("fraction", "size"), [(1e-9, 1), (1 - 1e-9, 8)])
def test_modular_addition_always_has_both_sets(fraction, size):
    task = make("modular_addition", modulus=3, fraction=fraction)
    assert task.train_size == size == len(task.data().x_train) and len(task.data().x_test) == 9 - size


def test_bad_parameters():
    with pytest.raises(UserError, match=r"^here.fraction: expected a number in \(0, 1\), got 1"):
        make("modular_addition", fraction=1)
    with pytest.raises(UserError, match=r"^here\.seed: no such key; did you mean 'split_seed'"):
        make("digits", seed=1)
