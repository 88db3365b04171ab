"""What only the cloud has: a description that Ray's launcher takes, and a head that costs money until it is gone."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import driving
import fakes
import jsonschema
import pytest
import ray.autoscaler
import yaml

from cluster import ClusterError, State
from cluster.cloud import Cloud

SCHEMA = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
TARGETS = [Cloud("aws"), Cloud("aws", "eu-central-1", "g5.xlarge", "m5.large", 7, True, image="lab/ray:1-gpu"),
           Cloud("gcp", project="mine"), Cloud("gcp", "us-east1", workers=0, spot=True, project="mine"),
           Cloud("azure", spot=True)]


def description(target: Cloud) -> dict[str, Any]:
    found: dict[str, Any] = next(yaml.safe_load_all(target.text(fakes.job("0"))))
    return found


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> fakes.Fake:
    fake = fakes.Fake.install("cloud", tmp_path / "fake")
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", fake.path)
    monkeypatch.setattr("cluster.cloud.POLL_SECONDS", 0.1)
    return fake


@pytest.mark.parametrize("target", TARGETS)
def test_ray_up_takes_the_description(target: Cloud, fake: fakes.Fake) -> None:
    """By its published schema as written, and by its own checks with its defaults filled in."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = description(target)
    jsonschema.validate(config, SCHEMA)
    filled = prepare_config(copy.deepcopy(config))
    validate_config(filled)
    assert filled["available_node_types"]["head"]["max_workers"] == 0
    assert filled["head_node_type"] == "head" and filled["max_workers"] == target.workers
    for wrong in ({"max_worker": 1}, {"max_workers": "2"}, {"available_node_types": {"a": {"node_config": {}}}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**config, **wrong}, SCHEMA)


def test_what_options_ask_for() -> None:
    config = description(TARGETS[1])
    workers = config["available_node_types"]["workers"]
    assert (workers["min_workers"], workers["max_workers"]) == (7, 7)
    assert workers["node_config"]["InstanceType"] == "g5.xlarge"
    assert workers["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    head = config["available_node_types"]["head"]["node_config"]
    assert head["InstanceType"] == "m5.large" and "InstanceMarketOptions" not in head
    assert config["docker"]["image"] == "lab/ray:1-gpu" and config["provider"]["region"] == "eu-central-1"
    assert config["provider"]["cache_stopped_nodes"] is False  # stopped disks cost money too


@pytest.mark.parametrize("target", TARGETS)
def test_every_machine_has_the_token_and_asks_for_it(target: Cloud) -> None:
    config = description(target)
    (there, here), = config["file_mounts"].items()
    for commands in ("head_start_ray_commands", "worker_start_ray_commands"):
        *_, start = config[commands]
        before, _, after = start.partition("ray start")
        assert f"export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH={there}/auth_token" in before
        assert "token" not in after
    assert here.endswith("/auth") and not Path(here).exists()
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][1]


def test_spot_and_regions_elsewhere() -> None:
    gcp, azure = description(TARGETS[3]), description(TARGETS[4])
    assert gcp["provider"] == {"type": "gcp", "region": "us-east1", "availability_zone": "us-east1-b",
                               "project_id": "mine"}
    assert gcp["available_node_types"]["workers"]["node_config"]["scheduling"] == [{"preemptible": True}]
    parameters = azure["available_node_types"]["workers"]["node_config"]["azure_arm_parameters"]
    assert parameters["priority"] == "Spot" and azure["provider"]["location"] == "westus2"


def test_gcp_wants_a_project() -> None:
    with pytest.raises(ClusterError, match=r"^--with project='': expected the id of your project on gcp$"):
        Cloud("gcp")


def test_a_driver_that_outlives_us_and_how_to_stop_paying(fake: fakes.Fake, tmp_path: Path) -> None:
    target = Cloud("aws")
    number = target.submit(fakes.job("0"))
    *lines, last = target.follow(number)
    file = tmp_path / "home" / ".phasesweep" / "jobs" / number / "cluster.yaml"
    assert last == (f"the head of {number} runs on and costs money; when you have its results: ray down --yes {file}")
    assert not [line for line in lines if "Loaded cached" in line or "closed" in line or "\r" in line]
    head = fake.state / "head" / "phasesweep" / number
    assert [call[1] for call in fake.calls][:3] == ["up", "rsync-up", "exec"]
    down = ["ray", "down", "--yes", "--workers-only", f"{fake.state / 'head'}/ray_bootstrap_config.yaml"]
    driving.wait(lambda: down in fake.calls, seconds=60.0)  # by the head itself, once the driver has ended
    assert fake.calls.index(["ray", "stop"]) < fake.calls.index(down) and (head / "down.log").exists()
    assert yaml.safe_load(file.read_text()) == description(target)


def test_one_study_has_one_cluster(fake: fakes.Fake) -> None:
    target = Cloud("aws")
    number = target.submit(fakes.job("wait"))
    with pytest.raises(ClusterError, match=f"^tiny is at work on the cluster {number}; cancel it first$"):
        target.submit(fakes.job("0"))
    target.cancel(number)
    list(target.follow(number))
    assert target.state(number) is State.STOPPED
    assert target.submit(fakes.job("0")) == number
    lines = list(target.follow(number))
    assert target.state(number) is State.DONE and "saved" not in lines
    other = target.submit(fakes.job("0", "Tiny"))
    assert other != number and other.rpartition("-")[0] == number.rpartition("-")[0]
    list(target.follow(other))


def test_a_cluster_that_was_taken_down(fake: fakes.Fake, tmp_path: Path) -> None:
    target = Cloud("aws")
    number = target.submit(fakes.job("0"))
    list(target.follow(number))
    (fake.state / "head").rename(tmp_path / "gone")
    assert target.state(number) is State.UNKNOWN
    with pytest.raises(ClusterError, match="has been taken down, and its disk with it; submit again"):
        target.fetch(number, "~/phasesweep/results/tiny", tmp_path / "here")
    with pytest.raises(ClusterError, match="has been taken down, or was not made here"):
        next(target.follow(number))


def test_results_come_among_the_launchers_lines(fake: fakes.Fake, tmp_path: Path) -> None:
    target, here = Cloud("aws"), tmp_path / "here"
    number = target.submit(fakes.job("0"))
    list(target.follow(number))
    results = target.place("tiny", "results/a $(b)").results
    there = fake.state / "head" / results.removeprefix("~/")
    for name in ("trials/part-00000.parquet", "steps/part-00000.parquet"):
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        (there / name).write_bytes(bytes(range(256)) * 400)
    assert target.fetch(number, results, here) == 2 * 256 * 400
    assert (here / "trials" / "part-00000.parquet").read_bytes() == bytes(range(256)) * 400
    assert target.fetch(number, results, here) == 0


@pytest.mark.parametrize(("results", "there"), [
    ("results/tiny", "~/phasesweep/results/tiny"), ("/data/tiny", "/data/tiny"), ("~/tiny", "~/tiny")])
def test_results_on_the_heads_disk(results: str, there: str) -> None:
    place = Cloud("azure").place("tiny", results)
    assert (place.results, place.fetched) == (there, True) and "ray down" in place.how


def test_results_outside_are_refused() -> None:
    with pytest.raises(ClusterError, match=r"^results=\.\./x: leads out of ~/phasesweep on the head; give a path"):
        Cloud("aws").place("tiny", "../x")


def test_machines_that_could_not_be_set_up(fake: fakes.Fake, tmp_path: Path) -> None:
    """They may cost money already."""
    fake.break_down("no capacity")
    with pytest.raises(ClusterError, match=r"^`ray up` failed: .*no capacity; when you give up: ray down --yes /"):
        Cloud("aws").submit(fakes.job("0"))
