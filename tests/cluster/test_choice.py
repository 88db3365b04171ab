"""What the word after --to means, and what --with may say."""

from __future__ import annotations

import pytest

from cluster import ClusterError, target
from cluster.cloud import Cloud
from cluster.kubernetes import Kubernetes
from cluster.rayjobs import RayJobs
from cluster.slurm import Slurm


@pytest.mark.parametrize(("to", "kind"), [
    ("http://head:8265", RayJobs), ("https://head", RayJobs), ("slurm", Slurm), ("kubernetes", Kubernetes),
    ("aws", Cloud), ("gcp", Cloud), ("azure", Cloud)])
def test_each_word_has_its_target(to: str, kind: type) -> None:
    assert isinstance(target(to, ["project=mine"] if to == "gcp" else []), kind)


@pytest.mark.parametrize("to", ["10.0.0.1:6379", "ray://10.0.0.1:10001", "auto", "[::1]:6379"])
def test_addresses_are_joined_by_this_process(to: str) -> None:
    assert target(to) is None


def test_options_are_read_by_the_type_of_their_field() -> None:
    assert target("slurm", ["nodes=4", "array=true", "time=08:00:00"]) == Slurm(nodes=4, array=True, time="08:00:00")


@pytest.mark.parametrize(("to", "options", "expected"), [
    ("slurn", [], r"--to 'slurn': expected host:port, .*; did you mean 'slurm'\?"),
    ("", [], r"--to '': expected host:port"),
    ("slurm", ["node=4"], r"--with node=4: --to slurm has no option 'node'; did you mean 'nodes'\?; .*nodes=1"),
    ("slurm", ["nodes"], r"--with nodes: --to slurm has no option"),
    ("slurm", ["nodes=four"], r"--with nodes=four: expected int, such as nodes=1"),
    ("slurm", ["array=perhaps"], r"--with array=perhaps: expected bool"),
    ("http://head:8265", ["url=x"], r"has no option 'url'"),
    ("10.0.0.1:6379", ["nodes=4"], r"--with nodes=4: --to 10.0.0.1:6379 has no options"),
])
def test_what_is_wrong_is_said_in_one_line(to: str, options: list[str], expected: str) -> None:
    with pytest.raises(ClusterError, match=expected) as caught:
        target(to, options)
    assert "\n" not in str(caught.value)
