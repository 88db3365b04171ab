"""Kubernetes with KubeRay 1.5.1 or later: a RayJob, which makes a Ray cluster, runs the driver on its head, and takes
the cluster down after it."""

from __future__ import annotations

import base64
import hashlib
import json
import posixpath
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

from cluster import commands, mirror
from cluster.commands import DRIVER
from cluster.connection import one_line
from cluster.errors import ClusterError
from cluster.job import Job, Place, State

POLL_SECONDS = 3.0
MOST_BYTES = 2**20  # a ConfigMap holds no more
RETRIES = 3  # new clusters after a head was lost; a driver that fails gets them too
GRACE_SECONDS = 60  # from the request that a pod ends to its end
CODE, RESULTS = "/phasesweep", "/results"  # where pods see the bundle, and the claim
DNS = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
STARTING = ("ContainerCreating", "PodInitializing", "")  # as every pod does
STATES = {"Running": State.RUNNING, "Suspending": State.RUNNING, "Retrying": State.RUNNING, "Complete": State.DONE,
          "Failed": State.FAILED, "ValidationFailed": State.FAILED, "Suspended": State.STOPPED}

# `bash run.sh` is the entrypoint: Ray has unpacked the bundle, which is the working directory of the job and of all
# its workers. `bash run.sh stop` is what the head's pod does before it ends, for whatever reason.
SCRIPT = f"""#!/bin/bash{DRIVER}
mkdir -p /tmp/phasesweep
if [ "${{1-}}" = stop ]; then
    cd /tmp/phasesweep
    stop
    while [ -e driver.pid ]; do sleep 0.5; done
    exit
fi
ln -sfn "$PWD" /tmp/phasesweep/code
cd /tmp/phasesweep
drive """


@dataclass(frozen=True)
class Kubernetes:
    """RayJobs in a ``namespace``. The head drives; ``workers`` pods train, up to ``max_workers`` where there is more to
    do, each with ``cpus``, ``gpus`` and ``memory``.

    ``image`` is Ray's own unless it is given; with ``install`` every pod installs phasesweep's other needs first, which
    an image of your own has already. ``claim`` is a PersistentVolumeClaim for results, which pods on several nodes can
    write to. The cluster stays for ``ttl`` seconds after the end.
    """

    namespace: str = "default"
    image: str = ""
    install: bool = True
    workers: int = 1
    max_workers: int = 0
    cpus: int = 4
    gpus: int = 0
    memory: str = "8Gi"
    claim: str = ""
    ttl: int = 3600

    def __post_init__(self) -> None:
        count = r"[1-9]\d{0,4}"
        commands.check(self, {
            "namespace": (DNS, "the name of a namespace"),
            "image": (r"([\w.:/@-]+)?", "a container image, such as rayproject/ray:2.52.0-py311"),
            "install": ("True|False", "true or false"),
            "workers": (count, "a number of pods, at least 1"),
            "max_workers": (r"\d{1,5}", "a number of pods, or 0 for a fixed number"),
            "cpus": (count, "a number of CPUs for each pod, at least 1"),
            "gpus": (r"\d{1,3}", "a number of GPUs for each pod"),
            "memory": (r"[1-9]\d*(Ki|Mi|Gi|Ti)", "memory for each pod, such as 8Gi"),
            "claim": (rf"({DNS}(\.{DNS})*)?", "the name of a PersistentVolumeClaim"),
            "ttl": (r"\d{1,8}", "seconds"),
        })

    def place(self, name: str, results: str) -> Place:
        """A URI as it is; a path only with a claim, which pods see at /results."""
        commands.check_results(results)
        if "://" in results:
            return Place(results, "in the object store", fetched=False)
        if not self.claim:
            raise ClusterError(f"results={results}: pods have no disk that outlives them; give a URI such as "
                               "results=s3://bucket/folder, or a PersistentVolumeClaim with --with claim=NAME")
        relative = results.removeprefix("results/") if not results.startswith("/") else results
        path = posixpath.normpath(posixpath.join(RESULTS, relative))
        if not path.startswith(f"{RESULTS}/"):
            raise ClusterError(f"results={results}: pods see the claim {self.claim} at {RESULTS}; give a path below it")
        return Place(path, f"in the claim {self.claim}", fetched=True)

    def look(self) -> str:
        """The versions of RayJobs that KubeRay serves."""
        served = self._kubectl("get", "crd", "rayjobs.ray.io", "--output=jsonpath={.spec.versions[*].name}",
                               hint="is KubeRay installed there?").decode().strip()
        return f"kubectl reaches a cluster with KubeRay, whose RayJob is {served}"

    def text(self, job: Job) -> str:
        """The manifest: a ConfigMap with the bundle, and the RayJob."""
        return commands.as_yaml(*self._manifest(job))

    def submit(self, job: Job) -> str:
        """Apply the manifest; what is at work under its name, which is of its content, is left as it is."""
        documents = self._manifest(job)
        name = str(documents[1]["metadata"]["name"])
        if self.state(name) in (State.DONE, State.FAILED, State.STOPPED):
            self._kubectl("delete", "rayjob", name, "--ignore-not-found", "--wait")
        # On the server's side, for kubectl would keep a second copy in an annotation, which is too long for one.
        self._kubectl("apply", "--server-side", "--filename=-", given=commands.as_yaml(*documents),
                      hint="RayJobs come with KubeRay 1.5.1 or later")
        return name

    def state(self, number: str) -> State:
        """By the status that KubeRay keeps."""
        status = self._status(number)
        return STATES.get(status.get("jobDeploymentStatus", ""), State.WAITING) if status is not None else State.UNKNOWN

    def why(self, number: str) -> str:
        """What KubeRay says, and what is the matter with its pods."""
        status = self._status(number)
        if status is None or STATES.get(status.get("jobDeploymentStatus", ""), State.WAITING) is State.DONE:
            return ""
        said = [": ".join(filter(None, (status.get("reason"), status.get("message"))))]
        for selector in (f"ray.io/cluster={status.get('rayClusterName', 'none')}", f"job-name={number}"):
            pods = json.loads(self._kubectl("get", "pods", f"--selector={selector}", "--output=json")).get("items", [])
            said += [f"pod {pod['metadata']['name']}: {trouble}" for pod in pods if (trouble := _trouble(pod))]
        return one_line("; ".join(filter(None, said)))

    def follow(self, number: str) -> Iterator[str]:
        """What the pods say that submit the driver to Ray: a second one if a head was lost."""
        seen: Counter[str] = Counter()
        while True:
            state = self.state(number)
            for pod in self._pods(f"job-name={number}"):
                for line in islice(commands.lines("kubectl", "--namespace", self.namespace, "logs", "--follow", pod),
                                   seen[pod], None):
                    seen[pod] += 1
                    yield line
            if state.final:
                return
            time.sleep(POLL_SECONDS)

    def cancel(self, number: str) -> None:
        """Suspend the RayJob: KubeRay takes its pods down, and the head's asks the driver to stop before it ends."""
        if self.state(number).final:
            return
        self._kubectl("patch", "rayjob", number, "--type=merge", "--patch", '{"spec":{"suspend":true}}')

    def fetch(self, number: str, results: str, into: Path) -> int:
        """By way of the head's pod, while it is there."""
        cluster = (self._status(number) or {}).get("rayClusterName", "none")
        pods = self._pods(f"ray.io/cluster={cluster},ray.io/node-type=head")
        if not pods:
            raise ClusterError(f"{number} has no pods any more, and {results} is in the claim {self.claim}: submit the "
                               "study again, which finds all done and brings the results, or mount the claim")
        command = ["exec", "--stdin", pods[-1], "--container=ray-head", "--", "env",
                   f"PYTHONPATH={CODE}/bundle.zip", "python", "-c", commands.ANSWER, results]

        def ask(request: mirror.Request) -> str:
            return self._kubectl(*command, given=json.dumps(asdict(request)), timeout=600).decode()

        return commands.bring(ask, into)

    def _status(self, number: str) -> dict[str, str] | None:
        """What KubeRay says of a RayJob; None where there is none of this name."""
        said = self._kubectl("get", "rayjob", _name(number), "--ignore-not-found", "--output=json")
        status: dict[str, str] | None = json.loads(said).get("status", {}) if said.strip() else None
        return status

    def _pods(self, selector: str) -> list[str]:
        """The running and ended ones, the oldest first."""
        return self._kubectl("get", "pods", f"--selector={selector}", "--sort-by=.metadata.creationTimestamp",
                             "--output=name").decode().split()

    def _kubectl(self, *words: str, given: str = "", hint: str = "", timeout: float = 120) -> bytes:
        return commands.run("kubectl", "--namespace", self.namespace, *words, given=given, hint=hint, timeout=timeout)

    def _manifest(self, job: Job) -> tuple[dict[str, Any], dict[str, Any]]:
        zipped, script = job.bundle.zipped, f"{SCRIPT}{commands.driver_command(job)}\n"
        if len(zipped) + len(script) > MOST_BYTES:
            largest = max(job.bundle.files, key=lambda name: (name.startswith("_usercode/"),
                                                              len(job.bundle.files[name])))
            raise ClusterError(f"{job.name}: its code has {len(zipped):,} bytes, and a ConfigMap holds {MOST_BYTES:,}; "
                               f"make {largest} smaller, or let it load its data from a URI")
        content = hashlib.blake2b(zipped, digest_size=5)
        content.update(f"{self} {script}".encode())
        name = f"ps-{commands.label(job.name)}-{content.hexdigest()}"
        metadata = {"name": name, "labels": {"app.kubernetes.io/managed-by": "phasesweep"}}
        code = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"run.sh": script},
                "binaryData": {"bundle.zip": base64.b64encode(zipped).decode()}}
        environment: dict[str, object] = {"working_dir": f"file://{CODE}/bundle.zip"}
        if self.install:
            environment["pip"] = commands.requirements()
        spec = {"entrypoint": f"bash {CODE}/run.sh", "runtimeEnvYAML": commands.as_yaml(environment),
                "backoffLimit": RETRIES, "shutdownAfterJobFinishes": True, "ttlSecondsAfterFinished": self.ttl,
                "rayClusterSpec": self._cluster(name)}
        return code, {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": metadata, "spec": spec}

    def _cluster(self, name: str) -> dict[str, Any]:
        most = max(self.workers, self.max_workers)
        stop = {"preStop": {"exec": {"command": ["bash", f"{CODE}/run.sh", "stop"]}}}
        worker = {"groupName": "workers", "replicas": self.workers, "minReplicas": self.workers, "maxReplicas": most,
                  "rayStartParams": {}, "template": self._pod(name, "ray-worker", self.cpus, self.gpus)}
        return {"rayVersion": version("ray"), "authOptions": {"mode": "token"},
                **({"enableInTreeAutoscaling": True} if most > self.workers else {}),
                "headGroupSpec": {"rayStartParams": {"num-cpus": "0"},  # trials do not slow the driver down
                                  "template": self._pod(name, "ray-head", min(2, self.cpus), 0, lifecycle=stop)},
                "workerGroupSpecs": [worker]}

    def _pod(self, name: str, role: str, cpus: int, gpus: int, **more: object) -> dict[str, Any]:
        limits = {"cpu": str(cpus), "memory": self.memory, **({"nvidia.com/gpu": str(gpus)} if gpus else {})}
        mounts: list[dict[str, Any]] = [{"name": "code", "mountPath": CODE, "readOnly": True}]
        volumes: list[dict[str, Any]] = [{"name": "code", "configMap": {"name": name}}]
        spec: dict[str, Any] = {"terminationGracePeriodSeconds": GRACE_SECONDS}
        if self.claim:
            mounts.append({"name": "results", "mountPath": RESULTS})
            volumes.append({"name": "results", "persistentVolumeClaim": {"claimName": self.claim}})
            spec["securityContext"] = {"fsGroup": 1000}  # Ray's user in its images; or only root could write
        container = {"name": role, "image": self.image or commands.ray_image(self.gpus > 0),
                     "resources": {"limits": limits, "requests": limits}, "volumeMounts": mounts, **more}
        return {"spec": {**spec, "containers": [container], "volumes": volumes}}


def _trouble(pod: dict[str, Any]) -> str:
    """Why a pod does not run, or ended badly: of its container, else of its place; empty where all is well."""
    status = pod.get("status", {})
    for container in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        for when, state in (*container.get("state", {}).items(), *container.get("lastState", {}).items()):
            reason = state.get("reason", "")
            if (when == "waiting" and reason not in STARTING) or (when == "terminated" and state.get("exitCode")):
                code = f"exit status {state['exitCode']}" if when == "terminated" else ""
                return " ".join(filter(None, (reason, code, state.get("message"))))
    for condition in status.get("conditions", ()):
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return f"{condition.get('reason', '')}: {condition.get('message', '')}"
    return " ".join(filter(None, (status.get("reason"), status.get("message"))))


def _name(number: str) -> str:
    if re.fullmatch(DNS, number) is None:
        raise ClusterError(f"{number!r:.80} is not the name of a RayJob; `kubectl get rayjobs` lists them")
    return number
