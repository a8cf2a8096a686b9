"""What a pod of Kubernetes must do, looked at by kubectl."""

from __future__ import annotations

import json
import platform
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from conformance.kubernetes.cluster import IMAGE, Cluster

_HERE = Path(__file__).parent
_LIMIT = "--timeout=180s"
_LIMIT_S = 180.0


@dataclass(frozen=True)
class Subject:
    """A pod whose container `web` serves a page.

    Attributes:
        cluster: where it runs.
        name: its name.
        runtime: the handler.
    """

    cluster: Cluster
    name: str
    runtime: str

    def exec(self, *words: str, stdin: str = "", check: bool = True) -> Any:
        """Runs a command in the container `web`."""
        how = ("exec", "-i", self.name, "-c", "web", "--", *words)
        return self.cluster.kubectl(*how, stdin=stdin, check=check)

    def status(self, name: str = "") -> dict[str, Any]:
        """Returns the pod's status."""
        done = self.cluster.kubectl("get", "pod", name or self.name, "-o", "json")
        found: dict[str, Any] = json.loads(done.stdout)["status"]
        return found


def create(cluster: Cluster, runtime: str, name: str) -> float:
    """Creates a pod, and waits until it is ready; returns how long that took, in seconds."""
    document = _document("pod.yaml", runtime, name)
    begun = time.monotonic()
    cluster.kubectl("apply", "-f", "-", stdin=document)
    cluster.kubectl("wait", "--for=condition=Ready", f"pod/{name}", _LIMIT)
    return time.monotonic() - begun


def delete(cluster: Cluster, name: str) -> None:
    """Deletes a pod with its ConfigMap, and waits until both are gone."""
    cluster.kubectl("delete", "pod", name, _LIMIT)
    cluster.kubectl("delete", "configmap", name, "--ignore-not-found", _LIMIT)


def kernel(pod: Subject) -> str:
    """The kernel of containers is the host's or not, as the runtime has it."""
    found = pod.exec("uname", "-r").stdout.strip()
    is_hosts = found == platform.release()
    return "" if is_hosts == (pod.runtime != "vc-runtime") else f"its kernel is {found}"


def volumes(pod: Subject) -> str:
    """An init container has copied a file of a ConfigMap into an emptyDir."""
    found = pod.exec("cat", "/www/page").stdout
    return "" if found.startswith("hello") else f"the page is {found!r}"


def init_once(pod: Subject) -> str:
    """The init container has run once, and ended."""
    (init,) = pod.status()["initContainerStatuses"]
    ended = init["state"].get("terminated") or {}
    is_good = ended.get("exitCode") == 0 and not init["restartCount"]
    return "" if is_good else f"the init container: {init['state']}"


def sibling(pod: Subject) -> str:
    """A second container sees the same emptyDir, and reaches the first by 127.0.0.1."""
    words = ("wget", "-q", "-O", "-", "http://127.0.0.1/page")
    found = pod.cluster.kubectl("exec", pod.name, "-c", "other", "--", *words).stdout
    return "" if found.startswith("hello") else f"it got {found!r}"


def address(pod: Subject) -> str:
    """The node reaches the pod's address."""
    url = f"http://{pod.status()['podIP']}/page"
    words = [*pod.cluster.entering, "curl", "-s", "-m", "20", url]
    found = subprocess.run(words, capture_output=True, text=True, check=False).stdout
    return "" if found.startswith("hello") else f"{url} answers {found!r}"


def exit_code(pod: Subject) -> str:
    """`kubectl exec` ends with the code of the command."""
    code = pod.exec("sh", "-c", "exit 7", check=False).returncode
    return "" if code == 7 else f"the exit code is {code}"


def stdin(pod: Subject) -> str:
    """`kubectl exec -i` passes input with its end, and output without a loss."""
    text = "line\n" * 20000
    found = pod.exec("cat", stdin=text).stdout
    return "" if found == text else f"{len(found)} of {len(text)} bytes came back"


def logs(pod: Subject) -> str:
    """`kubectl logs` shows what the container has written."""
    found = pod.cluster.kubectl("logs", pod.name, "-c", "web").stdout
    return "" if found == "serving\n" else f"the log is {found!r}"


def port_forward(pod: Subject) -> str:
    """`kubectl port-forward` carries a request."""
    words = pod.cluster.command("port-forward", f"pod/{pod.name}", "18080:80")
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            assert process.stdout is not None
            told = process.stdout.readline().decode()
            if not told.startswith("Forwarding from"):
                return told.strip()
            asking = [
                *pod.cluster.entering,
                "curl",
                "-s",
                "-m",
                "20",
                "http://127.0.0.1:18080/page",
            ]
            found = subprocess.run(asking, capture_output=True, text=True, check=False).stdout
        finally:
            process.kill()
    return "" if found.startswith("hello") else f"it answers {found!r}"


def memory_limit(pod: Subject) -> str:
    """A container above its limit of memory is killed, and the reason is told."""
    name = f"{pod.name}-greedy"
    document = _document("greedy.yaml", pod.runtime, name)
    pod.cluster.kubectl("apply", "-f", "-", stdin=document)
    try:
        pod.cluster.kubectl("wait", "--for=jsonpath={.status.phase}=Failed", f"pod/{name}", _LIMIT)
        ended = pod.status(name)["containerStatuses"][0]["state"]["terminated"]
    finally:
        delete(pod.cluster, name)
    return "" if ended["reason"] == "OOMKilled" else f"it ended with {ended}"


def liveness(pod: Subject) -> str:
    """A container whose probe fails is started again, and becomes ready."""
    pod.exec("rm", "/tmp/alive")
    restarted = "--for=jsonpath={.status.containerStatuses[?(@.name=='web')].restartCount}=1"
    pod.cluster.kubectl("wait", restarted, f"pod/{pod.name}", _LIMIT)
    pod.cluster.kubectl("wait", "--for=condition=Ready", f"pod/{pod.name}", _LIMIT)
    found = pod.exec("cat", "/www/page").stdout
    return "" if found.startswith("hello") else f"the page is {found!r}"


LOOKS: tuple[Callable[[Subject], str], ...] = (
    kernel,
    volumes,
    init_once,
    sibling,
    address,
    exit_code,
    stdin,
    logs,
    port_forward,
    memory_limit,
    liveness,
)
"""Each returns what is wrong, or an empty text. The last changes the pod."""


def look(pod: Subject, what: Callable[[Subject], str]) -> str:
    """Looks at one thing; a command that fails is wrong, too."""
    try:
        return what(pod)
    except subprocess.CalledProcessError as error:
        return str(error.stderr).strip() or str(error)
    except subprocess.TimeoutExpired:
        return f"no answer in {_LIMIT_S:.0f} s"


def left(cluster: Cluster, runtime: str) -> list[str]:
    """Returns the containers that a runtime keeps; the kubelet removes them after their pod."""
    until = time.monotonic() + _LIMIT_S
    while (found := cluster.containers(runtime)) and time.monotonic() < until:
        time.sleep(0.2)  # nobody tells
    return found


def _document(name: str, runtime: str, pod: str) -> str:
    values = {"runtime": runtime, "name": pod, "image": IMAGE}
    return Template((_HERE / name).read_text()).substitute(values)
