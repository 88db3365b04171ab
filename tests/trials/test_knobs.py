"""Knobs: each against a value computed by hand, off at strength 0, and the same in a pack."""

from dataclasses import fields, replace

import pytest
import torch
from scipy import stats
from torch.func import vmap

from trials.errors import UserError
from trials.fields import parse, real_names
from trials.knobs.base import KNOBS, Knob, Moment, places
from trials.streams import Stream

F64 = torch.float64
GRADS = {"a": torch.tensor([[3.0]], dtype=F64), "b": torch.tensor([0.0, 4.0], dtype=F64)}  # norm 5


def make(name, **params):
    return parse(KNOBS.get(name, "here"), params, "here")


def moment(seed=0, step=0, name="x"):
    return Moment(step, Stream.of(seed, f"knob.{name}"), {})


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def quadratic(params):
    """1/2 w^T diag(1, 2) w, and its gradient."""
    curvature = torch.tensor([1.0, 2.0]).to(params["w"].dtype)
    return 0.5 * (curvature * params["w"] ** 2).sum(), {"w": curvature * params["w"]}


def test_label_smoothing():
    """K = 4, a = 0.2: the class gets 0.8 + 0.05, the others 0.05."""
    smooth = make("label_smoothing", a=0.2).target(torch.tensor([[0.0, 1, 0, 0]], dtype=F64), moment())
    assert smooth.flatten().tolist() == pytest.approx([0.05, 0.85, 0.05, 0.05], abs=1e-15)


def test_dropout():
    h, knob = randn(400, 50), make("dropout", p=0.3)
    dropped = knob.activation(h, 0, moment())
    gone = dropped == 0
    assert torch.allclose(dropped[~gone], h[~gone] / 0.7, rtol=1e-14)
    assert gone.sum().item() == pytest.approx(0.3 * 20_000, abs=5 * (0.3 * 0.7 * 20_000) ** 0.5)
    assert torch.equal(gone, moment().stream(0).uniform((400, 50)) < 0.3)
    others = [knob.activation(h, 1, moment()), knob.activation(h, 0, moment(step=1)),
              knob.activation(h, 0, moment(seed=1))]
    for other in others:  # another layer, step or seed: a mask of its own
        both = (gone & (other == 0)).sum().item()
        assert both == pytest.approx(0.09 * 20_000, abs=5 * (0.09 * 0.91 * 20_000) ** 0.5)
    assert torch.equal(knob.activation(h, 0, moment()), dropped)


def test_input_noise():
    x = randn(100, 3, 8)
    noise = make("input_noise", std=0.5).input(x, moment()) - x
    assert stats.kstest((noise / 0.5).flatten(), "norm").pvalue > 0.01
    assert torch.allclose(make("input_noise", std=1.0).input(x, moment()) - x, 2 * noise, atol=1e-12)
    assert not torch.equal(make("input_noise", std=0.5).input(x, moment(step=1)) - x, noise)


def test_orthogonal_by_hand():
    """diag(2, 1) on top of a row of 0: (4 - 1)^2 = 9. A 2 x 2 kernel of ones is a row of norm^2 4: 9 again."""
    params = {"tall": torch.tensor([[2.0, 0], [0, 1], [0, 0]], dtype=F64), "bias": torch.full((5,), 9.0, dtype=F64),
              "kernel": torch.ones(1, 1, 2, 2, dtype=F64)}
    assert make("orthogonal", strength=0.5).penalty(params, moment()).item() == 0.5 * (9 + 9)
    assert make("orthogonal", strength=-0.5).penalty(params, moment()).item() == -0.5 * (9 + 9)


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5), (3, 2, 3, 3)])
def test_orthogonal_is_a_function_of_the_singular_values(shape):
    w = randn(*shape)
    s = torch.linalg.svdvals(w.flatten(1))
    penalty = make("orthogonal", strength=2.0).penalty({"w": w}, moment())
    assert penalty.item() == pytest.approx(2 * (s**2 - 1).square().sum().item(), rel=1e-12)
    q = torch.linalg.qr(randn(6, 4))[0]
    assert make("orthogonal", strength=1.0).penalty({"w": q, "v": q.T}, moment()).item() < 1e-25


def test_orthogonal_without_a_matrix_is_0():
    assert make("orthogonal").penalty({"bias": torch.ones(3)}, moment()).item() == 0


def test_gradient_clipping_by_hand():
    clipped = make("gradient_clipping", norm=1.0).gradient(GRADS, {}, moment())
    assert clipped["a"].item() == pytest.approx(0.6, rel=1e-6)
    assert clipped["b"].tolist() == pytest.approx([0, 0.8], rel=1e-6)
    assert GRADS["a"].item() == 3


@pytest.mark.parametrize("norm", [0.01, 4.9, 5.1, 100.0])
def test_gradient_clipping_against_torch(norm):
    theirs = [torch.zeros_like(g).requires_grad_() for g in GRADS.values()]
    for p, g in zip(theirs, GRADS.values(), strict=True):
        p.grad = g.clone()
    torch.nn.utils.clip_grad_norm_(theirs, norm)
    ours = make("gradient_clipping", norm=norm).gradient(GRADS, {}, moment())
    for p, g in zip(theirs, ours.values(), strict=True):
        assert torch.allclose(p.grad, g, rtol=1e-14, atol=0)


def test_sam_by_hand():
    """At w = (3, 2): g = (3, 4), so w moves by rho (0.6, 0.8) = (0.3, 0.4) to (3.3, 2.4), where g = (3.3, 4.8)."""
    params = {"w": torch.tensor([3.0, 2.0], dtype=F64)}
    loss, grads = make("sam", rho=0.5).sharpness(quadratic, params, moment())
    assert grads["w"].tolist() == pytest.approx([3.3, 4.8], rel=1e-12)
    assert loss.item() == pytest.approx(0.5 * (3.3**2 + 2 * 2.4**2), rel=1e-12)
    assert params["w"].tolist() == [3, 2]


def test_sam_at_a_minimum():
    loss, grads = make("sam", rho=0.5).sharpness(quadratic, {"w": torch.zeros(2, dtype=F64)}, moment())
    assert loss.item() == 0 and grads["w"].tolist() == [0, 0]


def test_init_scale_by_hand():
    """Matrices and kernels are doubled, biases and gains are not, and the parameters it gets are left alone."""
    params = {"w": torch.tensor([[1.0, -3.0]]), "kernel": torch.ones(1, 1, 2, 2), "b": torch.ones(2),
              "gain": torch.ones(())}
    scaled = make("init_scale", gain=2.0).initial(params)
    assert scaled["w"].tolist() == [[2, -6]] and scaled["kernel"].flatten().tolist() == [2] * 4
    assert scaled["b"].tolist() == [1, 1] and scaled["gain"].item() == 1
    assert params["w"].tolist() == [[1, -3]]


def test_loss_scale_by_hand():
    loss = make("loss_scale", scale=3.0).loss(torch.tensor([1.0, 0.5]), X["x"], X["x"], moment())
    assert loss.tolist() == [3, 1.5]


N, K = 20_000, 10
LABELS = torch.arange(N) % K
ONE_HOT = torch.nn.functional.one_hot(LABELS).to(F64)


def noisy(p, samples, seed=0, step=0):
    """The classes that label noise makes of these samples' labels."""
    target = make("label_noise", p=p).target(ONE_HOT[samples], replace(moment(seed, step), samples=samples))
    assert target.sum(1).eq(1).all() and target.max(1).values.eq(1).all()
    return target.argmax(1)


@pytest.mark.parametrize("p", [0.1, 0.5, 1.0])
def test_label_noise_is_uniform_over_all_classes(p):
    """A fraction p (1 - 1 / K) is wrong; the distance from the true class is uniform over the other K - 1."""
    distance = (noisy(p, torch.arange(N)) - LABELS) % K
    wrong = p * (1 - 1 / K)
    assert (distance > 0).sum().item() == pytest.approx(wrong * N, abs=4 * (wrong * (1 - wrong) * N) ** 0.5)
    assert stats.chisquare(torch.bincount(distance)[1:]).pvalue > 0.001
    if p == 1:  # whatever the true class
        table = torch.stack([torch.bincount(distance[own::K], minlength=K) for own in range(K)])
        assert stats.chi2_contingency(table).pvalue > 0.001


def test_label_noise_is_of_the_seed_and_the_sample_alone():
    fixed = noisy(0.5, torch.arange(N))
    order = torch.randperm(N, generator=torch.Generator().manual_seed(0))
    for step, batch in enumerate(order.split(3000)):  # another order, other batches, other steps
        assert torch.equal(noisy(0.5, batch, step=step), fixed[batch])
    assert torch.equal(noisy(0.5, torch.tensor([7, 7, 7])), fixed[[7, 7, 7]])
    other = noisy(0.5, torch.arange(N), seed=1)
    both = ((fixed != LABELS) & (other != LABELS)).sum().item()
    assert both == pytest.approx(0.45**2 * N, abs=4 * (0.45**2 * (1 - 0.45**2) * N) ** 0.5)
    more = noisy(0.8, torch.arange(N))  # a larger p replaces the same labels, by the same classes, and others
    assert torch.equal(more[fixed != LABELS], fixed[fixed != LABELS])


def test_label_noise_says_what_it_replaced():
    replaced, classes = make("label_noise", p=0.5).drawn(moment().root, torch.arange(N), K)
    assert torch.equal(torch.where(replaced, classes, LABELS), noisy(0.5, torch.arange(N)))


def test_label_noise_needs_samples_that_come_again():
    with pytest.raises(UserError, match=r"^trial.knobs.label_noise: needs a training set .* every batch fresh$"):
        make("label_noise").target(ONE_HOT[:3], moment())


# name -> (value of its one real field that switches it off, values of three lanes, what it does to random inputs)
X = {"x": randn(3, 6, 4), "t": torch.eye(4, dtype=F64)[:3].expand(3, 3, 4).clone(), "w": randn(3, 2, seed=1)}
USES = {
    "dropout": (0.0, [0.0, 0.3, 0.8], lambda knob, x, m: knob.activation(x["x"], 2, m)),
    "init_scale": (1.0, [1.0, 0.0, 3.0], lambda knob, x, m: knob.initial({"w": x["x"], "b": x["w"]})),
    "input_noise": (0.0, [0.0, 0.1, 2.0], lambda knob, x, m: knob.input(x["x"], m)),
    "label_noise": (0.0, [0.0, 0.5, 1.0],
                    lambda knob, x, m: knob.target(x["t"], replace(m, samples=torch.tensor([1, 0, 5])))),
    "label_smoothing": (0.0, [0.0, 0.1, -0.5], lambda knob, x, m: knob.target(x["t"], m)),
    "loss_scale": (1.0, [1.0, 0.0, 3.0], lambda knob, x, m: knob.loss(x["w"], x["x"], x["t"], m)),
    "orthogonal": (0.0, [0.0, 1.0, -3.0], lambda knob, x, m: knob.penalty({"w": x["x"], "b": x["w"]}, m)),
    "gradient_clipping": (1e30, [0.1, 3.0, 1e30], lambda knob, x, m: knob.gradient({"g": x["x"], "b": x["w"]}, {}, m)),
    "sam": (0.0, [0.0, 0.1, 2.0], lambda knob, x, m: knob.sharpness(quadratic, {"w": x["w"]}, m)),
}


def leaves(value):
    if isinstance(value, torch.Tensor):
        return [value]
    return [leaf for part in (value.values() if isinstance(value, dict) else value) for leaf in leaves(part)]


@pytest.mark.parametrize("name", KNOBS.classes)
@pytest.mark.parametrize(("dtype", "tolerance"), [(F64, 1e-12), (torch.float32, 1e-5)])
def test_packed_is_alone(name, dtype, tolerance):
    """Three lanes, each with its own strength and seed; warnings are errors, so nothing falls back to a loop."""
    _, strengths, use = USES[name]
    (field,) = real_names(KNOBS.classes[name])
    data = {key: value.to(dtype) for key, value in X.items()}

    def run(strength, key, step, x):
        return use(replace(make(name), **{field: strength}), x, Moment(step, Stream(key), {}))

    keys = torch.stack([Stream.of(seed, "knob.x").key for seed in range(3)])
    packed = vmap(run, in_dims=(0, 0, None, 0))(torch.tensor(strengths, dtype=F64), keys, 5, data)
    for lane in range(3):
        alone = run(strengths[lane], keys[lane], 5, {key: value[lane] for key, value in data.items()})
        for together, expected in zip(leaves(packed), leaves(alone), strict=True):
            assert torch.allclose(together[lane].to(dtype), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", KNOBS.classes)
def test_off_is_off(name):
    """At the strength that means off, a knob gives exactly what the place gives without it."""
    off, _, use = USES[name]
    (field,) = real_names(KNOBS.classes[name])
    x = {key: value[0] for key, value in X.items()}
    without = use(Knob(), x, moment())
    for on, expected in zip(leaves(use(make(name, **{field: off}), x, moment())), leaves(without), strict=True):
        assert torch.equal(on, expected.to(on.dtype))
    default = zip(leaves(use(make(name), x, moment())), leaves(without), strict=True)
    assert any(not torch.equal(on, expected.to(on.dtype)) for on, expected in default)


@pytest.mark.parametrize("name", KNOBS.classes)
def test_documented(name):
    cls = KNOBS.classes[name]
    assert places(cls) and cls.__doc__ and all(field.metadata["help"] for field in fields(cls))


def test_places():
    assert {name: places(KNOBS.classes[name]) for name in USES} == {
        "dropout": ("activation",), "init_scale": ("initial",), "input_noise": ("input",), "label_noise": ("target",),
        "label_smoothing": ("target",), "loss_scale": ("loss",), "orthogonal": ("penalty",),
        "gradient_clipping": ("gradient",), "sam": ("sharpness",)}
