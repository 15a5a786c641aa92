"""What this launch itself reads stays here: the way into the cluster, and the variables' files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.unit.code_folder import files, small_agent, write
from tests.unit.rendered import job
from torchnet.k8s.objects.code_bundle import CodeBundle, gather
from torchnet.k8s.objects.secret_filter import (
    KUBECONFIG,
    REASON,
    is_google_credential,
    is_kubeconfig,
    is_private,
)

_agent = pytest.fixture(autouse=True)(small_agent)
ENV_FILE = "an --env-file; the pods receive its variables without it"


@pytest.fixture(autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))


def gathered(root: Path, environ: dict[str, str] | None = None, **more: Any) -> CodeBundle:
    return gather(job(**more), root, environ or {})


def told(code: CodeBundle) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in code.left_out)


def test_the_launchs_own_files_stay_and_the_user_is_told(tmp_path: Path) -> None:
    write(tmp_path, "train.py", "kc", "first", "deep/second", "vars", "pod.yaml", "data")
    environ = {"KUBECONFIG": os.pathsep.join(["first", "missing", "", str(tmp_path / "deep/second")])}
    code = gathered(tmp_path, environ, kubeconfig="./kc", job_env_file=["vars"], pod_template="pod.yaml")
    assert files(code) == ["data", "pod.yaml", "train.py"]
    assert told(code) == {"kc": KUBECONFIG, "first": KUBECONFIG, "deep/second": KUBECONFIG, "vars": ENV_FILE}


def test_whatever_path_leads_to_them(tmp_path: Path) -> None:
    """The option names a link from outside, and the folder has links to what it means."""
    root, outside = tmp_path / "src", tmp_path / "outside"
    write(root, "train.py", "kc", "vars", "other")
    outside.mkdir()
    (outside / "config").symlink_to(root / "kc")
    (root / "linked").symlink_to("kc")
    os.link(root / "vars", root / "hard")
    code = gathered(root, kubeconfig=str(outside / "config"), job_env_file=["../src/vars"])
    assert files(code) == ["other", "train.py"]
    assert told(code).keys() == {"kc", "linked", "vars", "hard"}


def test_the_environment_is_an_argument(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "train.py", "kc")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kc"))
    assert files(gathered(tmp_path)) == ["kc", "train.py"]


def test_the_default_kubeconfig_may_be_a_link_to_one_here(tmp_path: Path) -> None:
    write(tmp_path, "train.py", "kc")
    link = Path(os.environ["HOME"], ".kube", "config")
    link.parent.mkdir()
    link.symlink_to(tmp_path / "kc")
    assert told(gathered(tmp_path)) == {"kc": KUBECONFIG}


def test_what_a_kubeconfig_names_stays_with_it(tmp_path: Path) -> None:
    write(tmp_path, "train.py", "keys/token", "keys/der", "keys/ca")
    users = [{"name": "a", "user": {"tokenFile": "token"}}, {"name": "b", "user": {"client-key": "der"}}, 1]
    clusters = [{"name": "a", "cluster": {"certificate-authority": "ca"}}]
    (tmp_path / "keys/kc").write_text(json.dumps({"users": users, "clusters": clusters}))
    code = gathered(tmp_path, kubeconfig="keys/kc")
    assert files(code) == ["keys/ca", "train.py"]
    assert all("kubeconfig" in reason for reason in told(code).values())


@pytest.mark.parametrize("text", ["[", "users: 3", "users: [{user: x}]", "users: [{user: {tokenFile: 3}}]"])
def test_a_kubeconfig_that_cannot_be_read_stays_all_the_same(tmp_path: Path, text: str) -> None:
    write(tmp_path, "train.py")
    write(tmp_path, "kc", text=text)
    assert files(gathered(tmp_path, kubeconfig="kc")) == ["train.py"]


def test_what_is_told_to_stay_is_not_told_of(tmp_path: Path) -> None:
    write(tmp_path, "train.py", "kc", "prod.env")
    write(tmp_path, ".gitignore", text="kc\n*.env\n")
    assert gathered(tmp_path, kubeconfig="kc", job_env_file=["prod.env"]).left_out == ()


# -- by content

USER = "users:\n- name: a\n  user:\n    token: t\n"
PLAIN = f"apiVersion: v1\nkind: Config\nclusters: []\n{USER}"
KUBECONFIGS = {
    "plain": PLAIN,
    "commented": f"# mine\n---\n{PLAIN}\n# end\n...\n",
    "windows": "\ufeff" + PLAIN.replace("\n", "\r\n"),
    "quoted": PLAIN.replace("kind: Config", "\"kind\" : 'Config' # yes"),
    "what torchnet's own reader refuses": PLAIN + "x: &a 1.5\ny: *a\n",
    "two documents": f"a: b\n---\n{PLAIN}",
    "broken": f"{PLAIN}x: [\n",
    "of no kind": f"clusters: []\ncontexts: []\n{USER}",
    "flow": "apiVersion: v1\nkind: Config\nusers: [\n  {name: a, user: {token: t}}\n]\n",
    "json": json.dumps({"kind": "Config", "users": [{"name": "a"}]}),
    "indented json": json.dumps({"kind": "Config", "users": [{"name": "a"}]}, indent=2) + "\n",
}
OTHERS = {
    "without users": PLAIN.replace(USER, "users: []\n"),
    "with null for users": PLAIN.replace(USER, "users: null\n"),
    "no users at all": PLAIN.replace(USER, ""),
    "json without users": json.dumps({"kind": "Config", "users": []}),
    "a script that holds one": f'CONFIG = """\n{PLAIN}"""\n',
    "a shell script that writes one": f"cat > config <<END\n{PLAIN}END\n",
    "a text about one": f"# How to\n\nWrite this:\n\n{PLAIN}",
    "an own Config": "kind: Config\nmodel: a\nlr: 1e-3\n",
    "another kind": PLAIN.replace("Config", "ConfigMap"),
    "a list of users": USER,
    "a data set": json.dumps({"users": [1, 2], "items": []}),
    "deep json": '{"kind": "Config", "users": ' + "[" * 100_000,
    "binary": "\0users Config\n",
}


@pytest.mark.parametrize("name", KUBECONFIGS)
def test_a_kubeconfig_of_any_name_stays(tmp_path: Path, name: str) -> None:
    write(tmp_path, "train.py")
    write(tmp_path, "some.yaml", text=KUBECONFIGS[name])
    code = gathered(tmp_path)
    assert files(code) == ["train.py"]
    assert told(code) == {"some.yaml": KUBECONFIG}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_kubeconfig_travels(name: str) -> None:
    assert not is_kubeconfig(OTHERS[name].encode())


# -- by name


@pytest.mark.parametrize(
    "name", ["prod.env", "a/prod.env", ".env", "b/.env.local", ".env.production.local", "PROD.ENV", ".envrc"]
)
def test_files_of_variables_stay(tmp_path: Path, name: str) -> None:
    write(tmp_path, "train.py", name)
    code = gathered(tmp_path)
    assert files(code) == ["train.py"]
    assert told(code) == {name: REASON}


@pytest.mark.parametrize(
    "name",
    [
        *(".env.example", "a/.env.sample", ".env.template", ".env.dist", "example.env", ".env.local.example"),
        *("env", "env.py", "prod.env.py", ".envs", "environment", "x.envelope", "train.env/lib.py"),
    ],
)
def test_examples_and_what_is_only_called_alike_travel(tmp_path: Path, name: str) -> None:
    write(tmp_path, "train.py", name)
    code = gathered(tmp_path)
    assert files(code) == sorted([name, "train.py"])
    assert code.left_out == ()


CREDENTIALS = (
    *("client.p12", "a/b/client.P12", "cert.pfx", "terraform.tfstate", "infra/terraform.tfstate.backup"),
    *(".streamlit/secrets.toml", "app/.streamlit/secrets.toml", ".databrickscfg", ".s3cfg", ".boto"),
    *("rclone.conf", ".config/rclone/rclone.conf", ".rclone.conf", "prod.tfstate"),
)


@pytest.mark.parametrize("name", CREDENTIALS)
def test_credentials_of_tools_stay(tmp_path: Path, name: str) -> None:
    write(tmp_path, "train.py", name)
    code = gathered(tmp_path)
    assert files(code) == ["train.py"]
    assert told(code) == {name: REASON}


@pytest.mark.parametrize(
    "name",
    [
        *("p12", "p12.py", "my.p12.txt", "terraform.tf", "main.tfvars.example", "secrets.toml", "x.pfx/a.py"),
        *(".streamlit/config.toml", "s3cfg", "rclone.conf.py", "databrickscfg.md"),
    ],
)
def test_files_with_names_like_those_travel(tmp_path: Path, name: str) -> None:
    write(tmp_path, "train.py", name)
    assert files(gathered(tmp_path)) == sorted([name, "train.py"])


GOOGLE = {
    "service account": {"type": "service_account", "private_key": "-----BEGIN PRIVATE KEY-----", "client_email": "a"},
    "user": {"type": "authorized_user", "client_secret": "s", "refresh_token": "1//x"},
}  # fmt: skip
NOT_GOOGLE = {
    "no key": {"type": "service_account", "client_email": "a", "why": "private_key"},
    "no type": {"private_key": "a", "refresh_token": "b"},
    "another type": {"type": "external_account", "private_key": "a"},
    "a list": [{"type": "service_account", "private_key": "a"}],
}


@pytest.mark.parametrize("name", GOOGLE)
@pytest.mark.parametrize("indent", [None, 2])
def test_google_credentials_of_any_name_stay(tmp_path: Path, name: str, indent: int | None) -> None:
    write(tmp_path, "train.py")
    write(tmp_path, "my-project-1a2b.json", text="\n" + json.dumps(GOOGLE[name], indent=indent))
    code = gathered(tmp_path)
    assert files(code) == ["train.py"]
    assert told(code) == {"my-project-1a2b.json": REASON}


@pytest.mark.parametrize(
    "text", [*map(json.dumps, NOT_GOOGLE.values()), '{"private_key": ', '{"private_key": ' * 10**5]
)
def test_other_json_travels(text: str) -> None:
    assert not is_google_credential(text.encode())


def test_a_link_to_a_file_of_variables_stays(tmp_path: Path) -> None:
    write(tmp_path, "train.py", "prod.env")
    (tmp_path / "variables").symlink_to("prod.env")
    assert files(gathered(tmp_path)) == ["train.py"]


def test_an_examples_key_is_still_a_key(tmp_path: Path) -> None:
    assert not is_private(".env.example")
    write(tmp_path, "train.py")
    write(tmp_path, ".env.example", text="-----BEGIN PRIVATE KEY-----\nx\n")
    assert files(gathered(tmp_path)) == ["train.py"]
