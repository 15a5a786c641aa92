"""``torchnet launch --on kubernetes --dry-run``: the objects themselves, ready for kubectl."""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.api_answers import kubeconfig
from torchnet.cli import main
from torchnet.errors import UsageError
from torchnet.k8s.client.kinds import kind_of
from torchnet.k8s.client.kubeconfig import namespace

ROOT = Path(__file__).resolve().parents[4]
WORDS = ("--on", "kubernetes", "--image", "r.example/p:1", "--network", "ml/backend-network")
Dry = Callable[..., tuple[int, str, str]]


@pytest.fixture
def dry(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dry:
    """Exit code, stdout and stderr of a dry run in a folder with train.py."""
    (tmp_path / "src").mkdir()
    monkeypatch.chdir(tmp_path / "src")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    (tmp_path / "src" / "train.py").write_text("print('trained')\n")

    def run(*words: str) -> tuple[int, str, str]:
        code = main(["launch", *WORDS, "--dry-run", *words])
        out, err = capsys.readouterr()
        return code, out, err

    return run


TOKEN = (
    "torchnet: the output contains the job's token (Secret {}-token): keep it out of logs and repositories, or use "
    "--token-secret NAME with a Secret that exists\n"
)


def objects(text: str) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(text) if one is not None]


@pytest.mark.parametrize("form", ["job", "jobset", "pods"])
def test_the_same_text_twice_for_the_same_run_id(dry: Dry, form: str) -> None:
    words = ("--kind", form, "--run-id", "one", "train.py", "--epochs", "3")
    first, second = dry(*words), dry(*words)
    assert first == second
    assert (first[0], first[2]) == (0, TOKEN.format("one"))
    # A name of its own each time.
    assert dry("--kind", form, "train.py")[1] != dry("--kind", form, "train.py")[1]
    found = objects(first[1])
    assert {body["metadata"]["labels"]["torchnet.alt/run"] for body in found} == {"one"}
    secret = next(body for body in found if body["kind"] == "Secret")
    assert len(base64.b64decode(secret["data"]["token"])) == 64


def test_json_holds_the_same_objects(dry: Dry) -> None:
    words = ("--run-id", "one", "train.py")
    listed = json.loads(dry("-o", "json", *words)[1])
    assert (listed["kind"], listed["items"]) == ("List", objects(dry("-o", "yaml", *words)[1]))


def test_the_head_says_what_it_is_and_where_values_come_from(
    dry: Dry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHNET_NNODES", "4")
    hostile = "x\n---\nkind: Evil\u2028"
    code, out, _ = dry(
        "--run-id", "one", "--env", "TOKEN=s3cr3t", "--annotation", f"a={hostile}", "train.py", hostile
    )
    assert code == 0
    head = out[: out.index("---\n")]
    assert "kubectl apply --server-side -f -" in head
    assert "#   nnodes = 4 (TORCHNET_NNODES)\n" in head
    assert "#   kubernetes.image = r.example/p:1 (--image)\n" in head
    assert "#   env.TOKEN (--env)\n" in head
    assert "s3cr3t" not in head
    assert "Evil" not in [body["kind"] for body in objects(out)]


def test_the_head_has_no_empty_rows_and_no_stray_spaces(dry: Dry, tmp_path: Path) -> None:
    (tmp_path / "src" / "torchnet.toml").write_text("[kubernetes]\ntolerations = []\n")
    _, out, _ = dry("--env", "A=1", "train.py")
    rows = out[: out.index("---\n")].splitlines()
    assert [row for row in rows if re.search(r"\S {2,}\S|= *(\(|#|$)", row.removeprefix("#").strip())] == []
    assert [row for row in rows if row != row.rstrip()] == []
    assert not [row for row in rows if row.startswith(("#   args", "#   kubernetes.tolerations"))]
    assert "#   on = kubernetes (--on)" in rows


def test_with_a_secret_of_the_users_none_is_printed(dry: Dry, tmp_path: Path) -> None:
    code, out, err = dry("--token-secret", "mine", "train.py")
    assert (code, err) == (0, "")
    assert "Secret" not in [body["kind"] for body in objects(out)]
    assert not (tmp_path / "config").exists()


def test_what_does_not_travel_is_said(dry: Dry, tmp_path: Path) -> None:
    (tmp_path / "src" / "link").symlink_to("/etc/passwd")
    (tmp_path / "src" / ".torchnetignore").write_text("")
    code, out, err = dry("--run-id", "one", "train.py")
    assert (code, err) == (
        0,
        f"torchnet: not bundled: link: link to a target outside the folder\n{TOKEN.format('one')}",
    )
    assert objects(out)


def test_what_the_launch_itself_reads_does_not_travel(
    dry: Dry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubeconfig(tmp_path / "src" / "kc.yaml", "https://x")
    kubeconfig(tmp_path / "src" / "other.yaml", "https://x")
    (tmp_path / "src" / "prod.env").write_text("A=s3cr3t\n")
    (tmp_path / "src" / "named").write_text("B=1\n")
    monkeypatch.setenv("KUBECONFIG", "other.yaml")
    (tmp_path / "src" / ".torchnetignore").write_text(".torchnetignore\n")
    words = ("--kubeconfig", "kc.yaml", "--env-file", "prod.env", "--env-file", "named", "--run-id", "one")
    code, out, err = dry(*words, "train.py")
    assert code == 0
    err = err.removesuffix(TOKEN.format("one"))
    assert {line.split(": ")[2] for line in err.splitlines()} == {
        "kc.yaml",
        "other.yaml",
        "prod.env",
        "named",
    }
    assert all(line.startswith("torchnet: not bundled: ") for line in err.splitlines())
    (code_map,) = [one for one in objects(out) if one["kind"] == "ConfigMap"]
    archive = zipfile.ZipFile(io.BytesIO(base64.b64decode(code_map["binaryData"]["code.zip"])))
    assert archive.namelist() == ["train.py"]
    worker = objects(out)[-1]["spec"]["template"]["spec"]["containers"][0]
    assert {"name": "A", "value": "s3cr3t"} in worker["env"]


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("missing.py",), "no such file"),
        (("--pod-template", "missing.yaml", "train.py"), "--pod-template"),
        (("--job-template", "missing.yaml", "train.py"), "--job-template"),
        (("--run-id", "a" * 63, "train.py"), "run_id"),
        (("--rails", "2", "train.py"), "only with --on local"),
        (("--context", "none", "train.py"), "--context none"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_with_nothing_printed(dry: Dry, words: tuple[str, ...], part: str) -> None:
    code, out, err = dry(*words)
    assert (code, out) == (2, "")
    assert part in err
    assert "Traceback" not in err


@pytest.mark.parametrize("form", ["job", "jobset", "pods"])
def test_it_ends_with_the_command_that_deletes_it(dry: Dry, form: str) -> None:
    """No owner takes applied objects along."""
    words = ("--kind", form, "-n", "ml", "--run-id", "one", "--multi-network-policy", "train.py")
    _, out, _ = dry(*words)
    line = out.splitlines()[-1]
    assert line.startswith("#   kubectl delete -n ml -l torchnet.alt/run=one ")
    named = line.rpartition(" ")[2].split(",")
    assert named[0] == f"{form.removesuffix('s')}s", "the pods' creator comes first"
    there = {kind_of(body).plural for body in objects(out)}
    assert (set(named), len(named)) == (there, len(there))
    assert all(body["metadata"]["labels"]["torchnet.alt/run"] == "one" for body in objects(out))


def test_a_template_of_the_job_beside_the_script(dry: Dry, tmp_path: Path) -> None:
    (tmp_path / "src" / "job.yaml").write_text("spec: {suspend: true}\n")
    _, out, _ = dry("--job-template", "job.yaml", "--ttl", "1h", "train.py")
    spec = objects(out)[-1]["spec"]
    assert (spec["suspend"], spec["ttlSecondsAfterFinished"]) == (True, 3600)
    assert "#   kubernetes.ttl = " in out


def test_a_template_beside_the_script(dry: Dry, tmp_path: Path) -> None:
    (tmp_path / "src" / "pod.yaml").write_text("spec: {runtimeClassName: nvidia}\n")
    _, out, _ = dry("--pod-template", "pod.yaml", "train.py")
    assert objects(out)[-1]["spec"]["template"]["spec"]["runtimeClassName"] == "nvidia"


# -- which namespace

CONFIG = """
current-context: b
contexts:
- {name: a, context: {namespace: ml, cluster: x}}
- {name: b, context: {cluster: x}}
"""


def test_the_namespace_is_the_flags_else_the_contexts_else_default(dry: Dry, tmp_path: Path) -> None:
    def where(*words: str) -> set[str]:
        code, out, err = dry(*words, "train.py")
        assert code == 0, err
        return {body["metadata"]["namespace"] for body in objects(out)}

    assert where() == {"default"}
    (tmp_path / "kubeconfig").write_text(CONFIG)
    assert where() == {"default"}
    assert where("--context", "a") == {"ml"}
    assert where("--context", "a", "-n", "mine") == {"mine"}


def test_files_of_kubeconfig_are_merged_the_first_wins(tmp_path: Path) -> None:
    (tmp_path / "1").write_text("current-context: a\n")
    (tmp_path / "2").write_text(CONFIG)
    (tmp_path / "3").write_text(CONFIG.replace("ml", "other"))
    paths = ":".join(str(tmp_path / name) for name in ("1", "missing", "2", "3"))
    assert namespace(None, None, {"KUBECONFIG": paths}) == "ml"
    assert namespace(str(tmp_path / "3"), "a", {"KUBECONFIG": paths}) == "other"


@pytest.mark.parametrize(
    "text",
    [
        "a: [",
        "contexts: 5",
        CONFIG.replace("ml", "../x").replace("current-context: b", "current-context: a"),
        "a: &a [*a]",
    ],
)
def test_a_kubeconfig_that_cannot_be_used_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "config").write_text(text)
    with pytest.raises(UsageError, match="-n NAMESPACE"):
        namespace(str(tmp_path / "config"), None, {})
    with pytest.raises(UsageError, match="no such file"):
        namespace(str(tmp_path / "missing"), None, {})


def test_a_dry_run_loads_neither_torch_nor_pyroute2_nor_the_client(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("")
    code = (
        "import sys\nfrom torchnet.cli import main\nsys.argv = ['torchnet', *sys.argv[1:]]\ncode = main()\n"
        "loaded = {name.partition('.')[0] for name in sys.modules}\n"
        'sys.stderr.write(f\'{code} {sorted(loaded & {"torch", "pyroute2", "kubernetes", "rich"})}\')'
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "launch", *WORDS, "--dry-run", "train.py"],
        cwd=tmp_path,
        env={
            "PYTHONPATH": str(ROOT),
            "XDG_CONFIG_HOME": str(tmp_path / "c"),
            "HOME": str(tmp_path),
            "PATH": "/usr/bin:/bin",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.splitlines()[-1] == "0 []"
