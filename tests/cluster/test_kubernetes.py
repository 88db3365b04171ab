"""What only Kubernetes has: a manifest that KubeRay's published schema takes, results in a claim."""

from __future__ import annotations

import base64
import copy
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fakes
import jsonschema
import pytest
import yaml

from cluster import Bundle, ClusterError, State
from cluster.kubernetes import MOST_BYTES, Kubernetes

SCHEMA = Path(__file__).with_name("schemas") / "rayjob.v1.json"
LARGE = Kubernetes(namespace="lab-1", image="registry.lab/ray@sha256:0af", install=False, workers=2, max_workers=9,
                   cpus=16, gpus=2, memory="64Gi", claim="results.lab", ttl=0)


def closed(schema: Any) -> Any:
    """The same schema without room for other keys, which Kubernetes would drop without a word."""
    if isinstance(schema, dict):
        found = {key: closed(value) for key, value in schema.items()}
        if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
            found.setdefault("additionalProperties", False)
        return found
    return [closed(item) for item in schema] if isinstance(schema, list) else schema


@pytest.fixture(scope="module")
def validate() -> Callable[[Any], None]:
    schema = closed(json.loads(SCHEMA.read_text()))
    validator = jsonschema.Draft7Validator(schema)
    validator.check_schema(schema)
    return validator.validate


def manifest(target: Kubernetes, **changes: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    job = replace(fakes.job("0"), **changes)
    config, rayjob = yaml.safe_load_all(target.text(job))
    return config, rayjob


@pytest.mark.parametrize("target", [Kubernetes(), LARGE, Kubernetes(claim="a", max_workers=1)])
def test_the_manifest_is_what_kuberay_takes(target: Kubernetes, validate: Callable[[Any], None]) -> None:
    config, rayjob = manifest(target)
    validate(rayjob)
    assert (rayjob["apiVersion"], rayjob["kind"]) == ("ray.io/v1", "RayJob")
    assert (config["apiVersion"], config["kind"]) == ("v1", "ConfigMap")
    assert set(config) == {"apiVersion", "kind", "metadata", "data", "binaryData"}


WRONG: list[tuple[list[Any], Any]] = [
    (["spec", "shutdownAfterJobFinish"], True),
    (["spec", "backoffLimit"], "3"),
    (["spec", "rayClusterSpec", "authOption"], {"mode": "token"}),
    (["spec", "rayClusterSpec", "authOptions", "mode"], "tokens"),
    (["spec", "rayClusterSpec", "headGroupSpec", "rayStartParams", "num-cpus"], 0),
    (["spec", "rayClusterSpec", "headGroupSpec", "template", "spec", "terminationGracePeriod"], 60),
    (["spec", "rayClusterSpec", "headGroupSpec", "template", "spec", "containers", 0, "lifecycle", "preStop", "exec",
      "command"], "bash"),
    (["spec", "rayClusterSpec", "workerGroupSpecs", 0, "maxReplica"], 2),
    (["spec", "rayClusterSpec", "workerGroupSpecs", 0, "template", "spec", "volumes", 0, "configmap"], {}),
]


@pytest.mark.parametrize(("path", "value"), WRONG)
def test_the_schema_would_tell(path: list[Any], value: object, validate: Callable[[Any], None]) -> None:
    _, rayjob = manifest(LARGE)
    wrong = copy.deepcopy(rayjob)
    part = wrong
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        validate(wrong)


def test_what_options_ask_for() -> None:
    _, rayjob = manifest(LARGE)
    spec, cluster = rayjob["spec"], rayjob["spec"]["rayClusterSpec"]
    assert (spec["ttlSecondsAfterFinished"], spec["shutdownAfterJobFinishes"], spec["backoffLimit"]) == (0, True, 3)
    assert "pip" not in yaml.safe_load(spec["runtimeEnvYAML"])
    worker, = cluster["workerGroupSpecs"]
    assert cluster["enableInTreeAutoscaling"] and cluster["authOptions"] == {"mode": "token"}
    assert (worker["replicas"], worker["minReplicas"], worker["maxReplicas"]) == (2, 2, 9)
    pods = [cluster["headGroupSpec"]["template"]["spec"], worker["template"]["spec"]]
    for pod in pods:
        assert pod["terminationGracePeriodSeconds"] == 60
        assert pod["containers"][0]["image"] == "registry.lab/ray@sha256:0af"
        assert {"name": "results", "persistentVolumeClaim": {"claimName": "results.lab"}} in pod["volumes"]
    head, trains = (pod["containers"][0]["resources"]["limits"] for pod in pods)
    assert trains == {"cpu": "16", "memory": "64Gi", "nvidia.com/gpu": "2"} and "nvidia.com/gpu" not in head
    stop = pods[0]["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    assert stop == ["bash", "/phasesweep/run.sh", "stop"]


def test_without_options() -> None:
    config, rayjob = manifest(Kubernetes())
    cluster = rayjob["spec"]["rayClusterSpec"]
    assert "enableInTreeAutoscaling" not in cluster
    image = cluster["headGroupSpec"]["template"]["spec"]["containers"][0]["image"]
    assert image.startswith(f"rayproject/ray:{cluster['rayVersion']}-py3")
    environment = yaml.safe_load(rayjob["spec"]["runtimeEnvYAML"])
    assert environment["working_dir"] == "file:///phasesweep/bundle.zip"
    names = [pin.partition("==")[0] for pin in environment["pip"]]
    assert {"torch", "optuna", "omegaconf"} <= set(names) and "ray" not in names and "pytest" not in names
    assert all(pin.partition("==")[2] and "+" not in pin for pin in environment["pip"])
    with zipfile.ZipFile(io.BytesIO(base64.b64decode(config["binaryData"]["bundle.zip"]))) as archive:
        assert archive.read("study.yaml") == b"0"


def test_names_are_of_the_content() -> None:
    names = {manifest(target, **changes)[1]["metadata"]["name"] for target, changes in (
        (Kubernetes(), {}), (Kubernetes(workers=2), {}), (Kubernetes(), {"results": "s3://other"}),
        (Kubernetes(), {"bundle": Bundle({"study.yaml": b""})}))}
    long = manifest(Kubernetes(), name="1 Ünder_way/" * 20)[1]["metadata"]["name"]
    assert len(names) == 4
    for name in (*names, long):
        assert len(name) <= 47 and name.startswith("ps-") and name.replace("-", "").isalnum() and name == name.lower()


def test_a_bundle_that_is_too_large() -> None:
    noise = b"".join(hash((number, "x")).to_bytes(8, "big", signed=True) for number in range(MOST_BYTES // 8))
    files = {"trials/big.py": noise, "_usercode/model.py": noise[:-80_000], "_usercode/small.py": b""}
    with pytest.raises(ClusterError) as caught:
        Kubernetes().text(replace(fakes.job("0"), bundle=Bundle(files)))
    message = str(caught.value)
    assert "\n" not in message and "1,048,576" in message and "make _usercode/model.py smaller" in message


@pytest.mark.parametrize(("results", "there"), [
    ("results/tiny", "/results/tiny"), ("mine/tiny", "/results/mine/tiny"), ("/results/a/../b", "/results/b")])
def test_results_in_a_claim(results: str, there: str) -> None:
    place = Kubernetes(claim="disk").place("tiny", results)
    assert (place.results, place.fetched) == (there, True)


@pytest.mark.parametrize(("claim", "results", "expected"), [
    ("", "results/tiny", "give a URI such as .* or a PersistentVolumeClaim with --with claim=NAME"),
    ("disk", "/home/me", "pods see the claim disk at /results; give a path below it"),
    ("disk", "/results", "give a path below it"), ("disk", "../x", "give a path below it"),
    ("disk", "results/../../etc", "give a path below it"),
])
def test_results_that_would_be_lost(claim: str, results: str, expected: str) -> None:
    with pytest.raises(ClusterError, match=expected) as caught:
        Kubernetes(claim=claim).place("tiny", results)
    assert "\n" not in str(caught.value)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> fakes.Fake:
    fake = fakes.Fake.install("kubernetes", tmp_path / "fake")
    monkeypatch.setenv("PATH", fake.path)
    monkeypatch.setattr("cluster.kubernetes.POLL_SECONDS", 0.1)
    return fake


def test_results_come_from_the_heads_pod(fake: fakes.Fake, tmp_path: Path) -> None:
    target, there, here = Kubernetes(claim="disk"), tmp_path / "claim", tmp_path / "here"
    number = target.submit(fakes.job("0"))
    list(target.follow(number))
    for name in ("trials/part-00000.parquet", "steps/part-00000.parquet", "study.yaml", ".lease"):
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        (there / name).write_bytes(name.encode() * 1000)
    size = sum(path.stat().st_size for path in there.rglob("*") if path.is_file() and path.name != ".lease")
    assert target.fetch(number, str(there), here) == size
    assert (here / "steps" / "part-00000.parquet").read_bytes() == b"steps/part-00000.parquet" * 1000
    assert not (here / ".lease").exists()
    assert target.fetch(number, str(there), here) == 0
    (there / "trials" / "part-00000.parquet").write_bytes(b"more")
    assert target.fetch(number, str(there), here) == 4
    assert (here / "trials" / "part-00000.parquet").read_bytes() == b"more"


def test_results_when_the_pods_are_gone(fake: fakes.Fake, tmp_path: Path) -> None:
    target = Kubernetes(claim="disk")
    number = target.submit(fakes.job("0"))
    list(target.follow(number))
    (fake.state / number / "logs").unlink()
    with pytest.raises(ClusterError, match=r"^ps-tiny-\w+ has no pods any more, and /results/tiny is in the claim disk"
                                           ": submit the study again, .*, or mount the claim$"):
        target.fetch(number, "/results/tiny", tmp_path / "here")


def test_submitting_twice_is_one_job(fake: fakes.Fake) -> None:
    target = Kubernetes()
    number = target.submit(fakes.job("wait"))
    assert target.submit(fakes.job("wait")) == number and target.state(number) is State.RUNNING
    target.cancel(number)
    assert target.state(number) is State.STOPPED
    assert not [call for call in fake.calls if "delete" in call]
    assert target.submit(fakes.job("wait")) == number and target.state(number) is State.RUNNING
    assert [call[3:6] for call in fake.calls if "delete" in call] == [["delete", "rayjob", number]]
    target.cancel(number)


def test_kubectl_keeps_no_copy_of_the_bundle(fake: fakes.Fake) -> None:
    """In an annotation, as it does unless told otherwise: those have 256 KiB at most."""
    Kubernetes(namespace="lab").submit(fakes.job("0"))
    applied, = (call for call in fake.calls if "apply" in call)
    assert applied == ["kubectl", "--namespace", "lab", "apply", "--server-side", "--filename=-"]
    assert (fake.state / "manifest.yaml").read_text() == Kubernetes(namespace="lab").text(fakes.job("0"))


@pytest.mark.parametrize(("word", "expected"), [
    ("", State.WAITING), ("Initializing", State.WAITING), ("Waiting", State.WAITING), ("Retrying", State.RUNNING),
    ("Suspending", State.RUNNING), ("ValidationFailed", State.FAILED)])
def test_other_states(fake: fakes.Fake, word: str, expected: State) -> None:
    (fake.state / "ps-x").mkdir()
    (fake.state / "ps-x" / "status").write_text(word)
    assert Kubernetes().state("ps-x") is expected


def pod(**status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "ps-head"}, "status": status}


@pytest.mark.parametrize(("found", "says"), [
    (pod(phase="Pending", containerStatuses=[{"state": {"waiting": {
        "reason": "ImagePullBackOff", "message": 'Back-off pulling image "nowhere/ray"'}}}]),
     'pod ps-head: ImagePullBackOff Back-off pulling image "nowhere/ray"'),
    (pod(phase="Pending", conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                                       "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."}]),
     "pod ps-head: Unschedulable: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu."),
    (pod(phase="Running", containerStatuses=[{"state": {"running": {}}, "lastState": {"terminated": {
        "reason": "OOMKilled", "exitCode": 137}}}]), "pod ps-head: OOMKilled exit status 137"),
    (pod(phase="Failed", reason="Evicted", message="The node was low on resource: memory."),
     "pod ps-head: Evicted The node was low on resource: memory."),
    (pod(phase="Running", containerStatuses=[{"state": {"running": {}}}],
         conditions=[{"type": "PodScheduled", "status": "True"}]), ""),
    (pod(phase="Pending", containerStatuses=[{"state": {"waiting": {"reason": "ContainerCreating"}}}]), ""),
])
def test_why_a_job_does_not_run(fake: fakes.Fake, found: dict[str, Any], says: str) -> None:
    number = Kubernetes(claim="c").submit(fakes.job("wait"))
    (fake.state / number / "status").write_text("Initializing")
    (fake.state / "pods.json").write_text(json.dumps({"items": [found]}))
    assert Kubernetes(claim="c").why(number) == says
    (fake.state / number / "status").write_text("Complete")
    assert Kubernetes(claim="c").why(number) == ""
