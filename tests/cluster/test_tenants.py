"""Pods as a tenant may have them: the namespace's user and group, and RDMA's capability without root."""

from __future__ import annotations

import os
import struct
from pathlib import Path

from tests.cluster import uid_range
from tests.cluster.concurrency import concurrent
from tests.cluster.launched import Launched
from tests.cluster.launcher import Launcher
from tests.jobs import until
from torchnet.constants import WORK_DIR

# What the user may do: read its code and token, write its folders, and have a name without an entry in /etc/passwd.
WHO = """\
    import getpass, os, pwd, tempfile
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = "nobody's"
    for folder in (".", os.environ["HOME"], tempfile.gettempdir(), "/dev/shm"):
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
    groups = sorted({*os.getgroups()} - {os.getgid()})
    print("user", os.getuid(), os.getgid(), groups, name, getpass.getuser(), flush=True)
"""
# A copy of Python, which the test gives the capability as the build of an image would; then the limit of locked memory
# does not apply to it.
LOCKS = f"""\
    import os, shutil, subprocess, sys, time
    copy = "{WORK_DIR}/python"
    shutil.copy(os.path.realpath(sys.executable), copy + ".part")
    os.rename(copy + ".part", copy)
    print("copied", flush=True)
    while not os.path.exists("{WORK_DIR}/go"):
        time.sleep(0.1)
    code = '''
    import ctypes, mmap, os, resource
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))
    memory = mmap.mmap(-1, 64 << 20)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    done = ctypes.CDLL(None, use_errno=True).mlock(ctypes.c_void_p(address), ctypes.c_size_t(64 << 20))
    print("mlock", os.getuid(), done, flush=True)
    '''
    for program in (sys.executable, copy):
        subprocess.run([program, "-c", code], check=True, env={{**os.environ, "PYTHONHOME": sys.base_prefix}})
"""
IPC_LOCK = 14
# struct vfs_cap_data: revision 2 and "effective"; permitted and inheritable, low and high.
CAPABILITY = struct.pack("<5I", 0x02000001, 1 << IPC_LOCK, 0, 0, 0)


@concurrent
def test_a_uid_range_that_is_enforced_and_assigned(launcher: Launcher, uid_ranges: None) -> None:
    """With the namespace's user, and with one that is named; test_network_policy benches and verifies there."""
    del uid_ranges
    script = launcher.script(WHO)
    words = ("--run-as", "namespace", "--start-timeout", "6s")
    unassigned = launcher.run(*launcher.words(*words, nnodes=1), script)
    assert unassigned.code == 124, unassigned.err
    assert "runAsNonRoot and image will run as root" in unassigned.err
    uid_range.give(launcher.cluster, launcher.namespace)
    refused = launcher.run(*launcher.words(nnodes=2), script)
    assert refused.code == 3, refused.err
    assert f"runAsUser must be in the range {uid_range.FIRST}-{uid_range.LAST}" in refused.err
    assert "--run-as namespace" in refused.err
    assert launcher.left() == []
    ran = launcher.run(*launcher.words("--run-as", "namespace", nnodes=2), script)
    assert ran.code == 0, ran.err
    assert ran.out.count(f"user {uid_range.FIRST} 0 [{uid_range.FIRST}] nobody's torchnet") == 2, ran.out
    user, group = uid_range.FIRST + 5, uid_range.FIRST + 6
    named = ("--run-as", f"{user}:0", "--fs-group", str(group), "--kind", "pods")
    ran = launcher.run(*launcher.words(*named, nnodes=1), script)
    assert ran.code == 0, ran.err
    assert f"user {user} 0 [{group}] nobody's torchnet" in ran.out
    assert launcher.left() == []


@concurrent
def test_the_example_pods_in_a_uid_range(launcher: Launcher, uid_ranges: None) -> None:
    del uid_ranges
    cluster, namespace = launcher.cluster, launcher.namespace
    uid_range.give(cluster, namespace)
    words = ("pytorch-pod-example", "-n", namespace, "--workers", "1", "--run-as", "namespace")
    printed = launcher.run("manifests", *words)
    assert printed.code == 0, printed.err
    cluster.kubectl("apply", "-f", "-", input=printed.out)
    ready = ("wait", "-n", namespace, "--for=condition=Ready", "pod", "-l", "app=pytorch-example")
    cluster.kubectl(*ready, "--timeout=100s", timeout=110)
    for rank, name in enumerate(("pytorch-training", "pytorch-worker-0")):
        assert f"rank {rank}: trained over net1" in cluster.kubectl("logs", "-n", namespace, name)
        user = cluster.kubectl("exec", "-n", namespace, name, "--", "id")
        assert f"uid={uid_range.FIRST} gid=0(root) groups=0(root),{uid_range.FIRST}" in user


@concurrent
def test_memory_is_locked_without_root(launcher: Launcher) -> None:
    """With --rdma, by a program with the file capability; by others of this user only within the limit."""
    cluster, namespace = launcher.cluster, launcher.namespace
    level = "pod-security.kubernetes.io/enforce"
    refused = launcher.run(*launcher.words("--rdma", nnodes=1), launcher.script("print('hello')\n"))
    assert refused.code == 3, refused.err
    assert "violates PodSecurity" in refused.err
    assert "IPC_LOCK" in refused.err
    cluster.kubectl("label", "namespace", namespace, "--overwrite", f"{level}=privileged")
    flags = ("--rdma", "--run-as", "5001:0")
    with Launched(launcher, "locks", LOCKS, *flags, nnodes=1) as job:
        job.wait_for("copied", "stdout", 120)
        folder = Path(f"/proc/{job.script_of(0)}/root{WORK_DIR}")
        os.setxattr(folder / "python", "security.capability", CAPABILITY)
        (folder / "go").touch()
        ended = job.finish(120)
    assert ended.code == 0, ended.stdout + ended.stderr
    found = [line.partition("mlock ")[2] for line in ended.stdout.splitlines() if "mlock" in line]
    assert found == ["5001 -1", "5001 0"], "as it is, and with the capability"
    until(lambda: launcher.left() == [], "the run's end")
