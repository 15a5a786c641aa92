"""What stays of the script's folder: what never travels, what cannot, and what ignore files name."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.code_folder import files, read, small_agent, write
from torchnet.k8s.objects.run_identity import user_key

_agent = pytest.fixture(autouse=True)(small_agent)


def test_what_never_travels(tmp_path: Path) -> None:
    write(
        tmp_path,
        "train.py",
        ".git/config",
        "a/__pycache__/x.pyc",
        "env/pyvenv.cfg",
        "env/lib/x.py",
        ".venv/x",
        "a/b.py",
    )
    assert files(read(tmp_path)) == ["a/b.py", "train.py"]


def test_the_key_of_runs_secrets_never_travels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / ".config"))
    user_key(os.environ)
    write(tmp_path, "train.py", ".config/torchnet/other")
    (tmp_path / "link").symlink_to(".config/torchnet/key")
    assert files(read(tmp_path)) == [".config/torchnet/other", "train.py"]


PEM = "-----BEGIN {}-----\nAAAA\n-----END {}-----\n"
CERTIFICATE = PEM.format(*["CERTIFICATE"] * 2)
KEYS = [
    *(PEM.format(kind, kind) for kind in ("PRIVATE KEY", "RSA PRIVATE KEY", "OPENSSH PRIVATE KEY")),
    "PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\n",
]


def test_keys_do_not_travel_and_the_user_is_told(tmp_path: Path) -> None:
    stay = [
        *(
            ".ssh/config",
            "a/.ssh/x",
            ".aws/credentials",
            ".azure/x",
            ".gcloud/x",
            ".config/gcloud/x",
            ".kube/config",
        ),
        *(
            ".gnupg/x",
            ".docker/config.json",
            ".netrc",
            ".pypirc",
            ".npmrc",
            ".git-credentials",
            ".env",
            "a/.env",
            ".envrc",
            ".pgpass",
        ),
        *(".config/gh/hosts.yml", ".kaggle/kaggle.json", ".huggingface/token"),
        *(".cache/huggingface/token", ".cache/huggingface/stored_tokens"),
    ]
    go = [".config/app", ".cache/huggingface/hub/x", ".envs", "env", "a/ssh/x", ".gitignore2", "kube/config"]
    write(tmp_path, "train.py", *stay, *go)
    for number, key in enumerate(KEYS):
        write(tmp_path, f"id_{number}", text=key)
    write(tmp_path, "server.pem", text=f"\n{CERTIFICATE}{KEYS[0]}")
    write(tmp_path, "ca.pem", text=CERTIFICATE)
    write(tmp_path, "keys.py", text=f'KEY = """\n{KEYS[0]}"""\n')
    (tmp_path / "linked").symlink_to(".ssh")
    (tmp_path / "linked-file").symlink_to(".ssh/config")
    write(tmp_path, ".env2/.env/pyvenv.cfg")  # an environment for Python is nothing to tell of
    code = read(tmp_path)
    assert files(code) == sorted(["train.py", "ca.pem", "keys.py", *go])
    told = dict(line.split(": ", 1) for line in code.left_out)
    assert set(told.values()) == {"may contain keys, which a ConfigMap would expose; use --secret NAME"}
    folders = {
        ".ssh/",
        "a/.ssh/",
        ".aws/",
        ".azure/",
        ".gcloud/",
        ".config/gcloud/",
        ".kube/",
        ".gnupg/",
        ".docker/",
        ".config/gh/",
        ".kaggle/",
        ".huggingface/",
    }
    named = {name for name in stay if not any(name.startswith(folder) for folder in folders)}
    keys = {f"id_{number}" for number in range(len(KEYS))}
    assert set(told) == {*folders, *named, *keys, "server.pem", "linked/", "linked-file"}


def test_keys_that_are_told_to_stay_are_not_told_of(tmp_path: Path) -> None:
    write(tmp_path, "train.py", ".env", ".ssh/id")
    write(tmp_path, ".gitignore", text=".env\n.ssh/\n")
    assert read(tmp_path).left_out == ()


def test_what_cannot_travel_is_named(tmp_path: Path) -> None:
    write(tmp_path, "train.py", "folder/a.py", "data.txt")
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    write(outside, "secret.txt")
    (tmp_path / "out").symlink_to(outside / "secret.txt")
    (tmp_path / "up").symlink_to("..")
    (tmp_path / "round").symlink_to(".")
    (tmp_path / "folder" / "loop").symlink_to(tmp_path)
    (tmp_path / "gone").symlink_to("nowhere")
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "inside").symlink_to("data.txt")
    (tmp_path / "again").symlink_to("folder")
    os.mkfifo(tmp_path / "pipe")
    with open(os.fsencode(tmp_path) + b"/\xff.txt", "w"):
        pass
    server = socket.socket(socket.AF_UNIX)
    here = os.getcwd()
    try:
        os.chdir(tmp_path)  # a socket's path has 107 bytes
        server.bind("socket")
    finally:
        os.chdir(here)
        server.close()
    code = read(tmp_path)
    assert files(code) == ["again/a.py", "data.txt", "folder/a.py", "inside", "train.py"]
    told = dict(line.rsplit(": ", 1) for line in code.left_out)
    assert told["out"] == told["up"] == "link to a target outside the folder"
    assert told["round"] == told["folder/loop"] == "link to a parent folder"
    assert told["gone"] == told["self"] == "broken link"
    assert told["pipe"] == told["socket"] == "not a regular file"
    assert "UTF-8" in told["\\udcff.txt"]
    assert all(line.isprintable() for line in code.left_out)


# -- ignore files


def test_ignore_files_as_git_reads_them(tmp_path: Path) -> None:
    write(
        tmp_path,
        "train.py",
        "a.pt",
        "keep.pt",
        "data/x.bin",
        "sub/a.log",
        "sub/keep.log",
        "sub/deep/b.log",
        "build",
        "sub/build",
    )
    (tmp_path / ".gitignore").write_text("*.pt\n!keep.pt\ndata/\n/build\n*.log\n")
    (tmp_path / "sub" / ".gitignore").write_text("!keep.log\n")
    (tmp_path / "sub" / "deep" / ".gitignore").write_text("!*.log\n")
    expected = [
        ".gitignore",
        "keep.pt",
        "sub/.gitignore",
        "sub/build",
        "sub/deep/.gitignore",
        "sub/deep/b.log",
        "sub/keep.log",
        "train.py",
    ]
    assert files(read(tmp_path)) == expected


def test_torchnetignore_goes_before_gitignore(tmp_path: Path) -> None:
    write(tmp_path, "train.py", "weights.pt", "big.bin", "notes.md")
    (tmp_path / ".gitignore").write_text("*.pt\nnotes.md\n")
    (tmp_path / ".torchnetignore").write_text("!weights.pt\n*.bin\n.*\n")
    assert files(read(tmp_path)) == ["train.py", "weights.pt"]


def test_the_checkouts_own_rules_count_below_it(tmp_path: Path) -> None:
    write(
        tmp_path,
        "repo/.git/config",
        "repo/src/train.py",
        "repo/src/a.tmp",
        "repo/src/b.local",
        "repo/src/out/x",
    )
    (tmp_path / ".gitignore").write_text("*.py\n")  # outside of the checkout
    (tmp_path / "repo/.gitignore").write_text("*.tmp\nsrc/out\n")
    write(tmp_path, "repo/.git/info/exclude", text="*.local\n")
    assert files(read(tmp_path / "repo", "src/train.py")) == ["train.py"]
    (tmp_path / "repo/.gitignore").write_text("")
    assert files(read(tmp_path / "repo/src")) == ["a.tmp", "out/x", "train.py"]


def test_without_a_checkout_only_the_folders_own_files_count(tmp_path: Path) -> None:
    write(tmp_path, "src/train.py", "src/a.tmp")
    (tmp_path / ".gitignore").write_text("*.tmp\n")
    assert files(read(tmp_path / "src")) == ["a.tmp", "train.py"]


PATTERNS = st.lists(
    st.sampled_from(
        [
            "a",
            "b",
            "*",
            "!a",
            "a/",
            "/a",
            "b/*",
            "!b/a",
            "**/a",
            "a/**",
            "!*/",
            "#x",
            "",
            "[ab]",
            "!/b",
            "a/b",
            "d/**",
            "!d/b/a",
            "**/b/*",
            "\\!a",
            "*b",
        ]
    ),
    max_size=5,
)
PATHS = ["a", "b", "c/a", "c/b", "d/a/b", "d/b/a", "!a", "e/ab"]


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(top=PATTERNS, inner=PATTERNS)
def test_the_same_files_as_git_would_take(tmp_path: Path, top: list[str], inner: list[str]) -> None:
    root = tmp_path / "repo"
    if not root.exists():
        write(root, *PATHS)
        subprocess.run(["git", "init", "-q", str(root)], check=True)
    (root / ".gitignore").write_text("\n".join(top))
    (root / "d" / ".gitignore").write_text("\n".join(inner))
    listed = subprocess.run(
        ["git", "-c", "core.excludesFile=/dev/null", "ls-files", "-z", "-co", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    ours = read(root, "x", job_module=True)
    assert sorted(files(ours)) == sorted(filter(None, listed.stdout.split("\0")))
