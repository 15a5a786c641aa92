"""What README, docs/ and CONTRIBUTING say is true: commands, options, variables, files, links and tables."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from tests.conftest import Result
from tests.repo.documents import (
    DOCUMENTS,
    PAGES,
    ROOT,
    anchors,
    links,
    quoted,
    rows,
    shell_lines,
    text,
    without_blocks,
)
from tests.unit.bench_results import healthy
from tools import settings_page
from torchnet import constants, errors
from torchnet.agent import command_line, stop_signals, worker_processes
from torchnet.bench.results import dump
from torchnet.cli import entry_point, main
from torchnet.cli.torchrun_compat import TORCHRUN_FLAGS
from torchnet.config.fault_syntax import KINDS as FAULTS
from torchnet.config.settings import FIELDS
from torchnet.k8s.client.kinds import FORMER_KINDS, KINDS
from torchnet.receipt.receipt_model import Failure, Receipt

LINES = sorted({tuple(words) for name in DOCUMENTS for words in shell_lines(text(name))})
TORCHNET_LINES = [words for words in LINES if words[0] == "torchnet"]
NEED_A_CLUSTER = ("status", "logs", "attach", "down", "verify", "network")
OTHER_PROGRAMS = {"kubectl", "uv", "pip", "pytest", ".ci/run", "source", "srun"}
# Options and variables of other programs that stand in prose.
THEIR_OPTIONS = {"--server-side", "--bidir", "--namespace-isolation", "--print-completion"}
THEIR_VARIABLES = {"CUDA_VISIBLE_DEVICES", "NCCL_DEBUG", "PYTHONPATH"}


def test_there_is_something_to_check() -> None:
    assert len(PAGES) > 12
    assert len(TORCHNET_LINES) > 40
    assert {words[0] for words in LINES} - OTHER_PROGRAMS == {"torchnet"}


@pytest.mark.parametrize("words", TORCHNET_LINES, ids=" ".join)
def test_each_command_is_understood(
    words: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Jobs as dry runs; what needs a cluster up to the missing kubeconfig; the agent up to its specification."""
    command = list(words[1:])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    (tmp_path / "train.py").touch()  # on Kubernetes its folder travels, and the dry run shows it
    if command[:2] == ["network", "lint"] and "-n" not in command:
        (tmp_path / "manifests").symlink_to(ROOT / "manifests")
        assert main(command) == 0
        return
    if any(word.startswith("launch/") for word in command):
        (tmp_path / "launch").symlink_to(ROOT / "launch")
    if command[0] == "agent":
        options = command_line.parse(command[1:])
        assert command_line.spec_of(options, joins=False).nnodes > 1
        return
    if command[0] == "receipt":
        # Reading them is enough: the networks and the files are those of other machines.
        assert main(command) == (2 if command[1] == "merge" else 4)
        return
    if command[:2] == ["bench", "diff"]:
        for name in command[2:]:
            (tmp_path / name).write_text(dump(healthy(2)))
    elif command[0] in ("launch", "bench") and "--dry-run" not in command:
        command.insert(1, "--dry-run")
    code = main(command)
    out, err = capsys.readouterr()
    if command[0] in NEED_A_CLUSTER:
        assert code == 3, err
        return
    told = [line for line in err.splitlines() if "the output contains the job's token" not in line]
    assert (code, told) == (0, [])
    assert out


@pytest.fixture(scope="module")
def known_options() -> set[str]:
    """Every option of every command, of torchrun and of the agent."""
    pages = [text(f"tests/golden/{path.name}") for path in (ROOT / "tests/golden").glob("help-*.txt")]
    pages.append(command_line.parser("torchnet agent").format_help())
    found = set(re.findall(r"--[a-z][a-z0-9-]+", "\n".join(pages)))
    return found | {one.flag for one in TORCHRUN_FLAGS}


@pytest.mark.parametrize("name", PAGES)
def test_each_option_exists(name: str, known_options: set[str]) -> None:
    """In prose; those in commands are parsed above."""
    shown = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", without_blocks(text(name))))
    assert shown - known_options - THEIR_OPTIONS == set()


@pytest.mark.parametrize("name", PAGES)
def test_each_variable_exists(name: str) -> None:
    shown = {
        found.group(1)
        for word in quoted(text(name))
        if (found := re.fullmatch(r"\$?([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)(?:=.*)?", word))
    }
    sources = "".join(
        path.read_text() for folder in ("torchnet", "tests") for path in (ROOT / folder).rglob("*.py")
    )
    known = {field.env for field in FIELDS} | THEIR_VARIABLES
    assert [one for one in sorted(shown - known) if f'"{one}"' not in sources] == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_each_link_leads_somewhere(name: str) -> None:
    folder = (ROOT / name).parent
    for link in links(text(name)):
        path, _, anchor = link.partition("#")
        if "://" in path:
            continue
        target = folder / path if path else ROOT / name
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text()), link


@pytest.mark.parametrize("name", DOCUMENTS)
def test_each_file_that_is_named_exists(name: str) -> None:
    """In backquotes, from the root or from torchnet/; and the scripts in commands."""
    paths = [
        word for word in quoted(text(name)) if re.fullmatch(r"[\w.-]+(?:/[\w.-]+)*/?", word) and "/" in word
    ]
    paths += [
        word
        for words in shell_lines(text(name))
        for word in words
        if re.fullmatch(r"[\w.-]+/[\w./-]+\.(py|toml|md|yaml)", word)
    ]
    modules = [words[3] for words in shell_lines(text(name)) if words[:3] == ["uv", "run", "-m"]]
    paths += [
        f"{module.replace('.', '/')}.py"
        for module in modules
        if not (ROOT / module.replace(".", "/")).is_dir()
    ]
    elsewhere = (
        *("ml/", "torchnet.alt/run", "torchnet/run", "torchnet.receipt/1", "torchnet.verify/1"),
        *("torchnet.network-lint/1", "torchnet.network-show/1", "k8s.v1.cni.cncf.io/networks"),
    )
    named = [path for path in paths if not path.startswith(elsewhere)]
    places = (ROOT, ROOT / "torchnet", (ROOT / name).parent)
    assert [path for path in named if not any((place / path).exists() for place in places)] == []


@pytest.mark.parametrize("name", PAGES)
def test_each_job_file_is_valid(name: str, torchnet: Callable[..., Result], tmp_path: Path) -> None:
    for found in re.findall(r"^```toml\n(.*?)^```$", text(name), re.DOTALL | re.MULTILINE):
        (tmp_path / "job.toml").write_text(found)
        done = torchnet("launch", "--dry-run", "--config", "job.toml", cwd=tmp_path)
        assert (done.code, done.stderr) == (0, "")


@pytest.mark.parametrize("name", PAGES)
def test_the_python_examples_name_what_exists(name: str) -> None:
    import torchnet

    for found in re.findall(r"^```python\n(.*?)^```$", text(name), re.DOTALL | re.MULTILINE):
        names = {
            node.attr
            for node in ast.walk(ast.parse(found))
            if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "torchnet"
        }
        assert names
        assert names <= {*torchnet.__all__, "errors"}


def test_each_page_is_in_the_list_of_pages() -> None:
    listed = {link for link in links(text("docs/README.md")) if "/" not in link}
    assert {f"docs/{name}" for name in listed} | {"docs/README.md"} == {
        name for name in PAGES if name.startswith("docs/")
    }


def test_the_page_of_settings_is_the_table_of_settings() -> None:
    assert text("docs/settings.md") == settings_page.text(), "uv run tools/settings_page.py writes it again"


def test_the_exit_codes_are_those_of_the_code() -> None:
    kinds = [errors.TorchnetError, errors.UsageError, errors.ClusterError, errors.NetworkError]
    raised = {kind.exit_code for kind in kinds}
    own = {entry_point.INTERRUPTED, entry_point.INTERNAL, entry_point.BROKEN_PIPE, constants.REPLACE_CODE}
    # Success, a wrong result of the benchmark, --min-share, a time limit.
    expected = raised | own | {128 + number for number in stop_signals.SIGNALS} | {0, 1, 5, 124}
    table = rows(text("docs/exit-codes.md"), "code")
    assert {int(code) for code, *_ in table if code.isdigit()} == expected
    named = {kind for *_, cell in table for kind in re.findall(r"`(\w+)`", cell)}
    assert named == set(get_args(Failure.model_fields["kind"].annotation))


def test_the_faults_are_those_of_the_code() -> None:
    table = rows(text("docs/launch.md"), "kind")
    assert [cells[0].strip("`") for cells in table] == list(FAULTS)
    assert [cells[1].startswith("`=") for cells in table] == [
        about.startswith("=") for about in FAULTS.values()
    ]


def test_the_receipts_fields_exist() -> None:
    fields = rows(text("docs/receipt.md"), "field")
    named = {name for cells in fields for name in re.findall(r"`(\w+)`", cells[0])}
    assert {"backend_share", "proof"} <= named
    assert named <= set(Receipt.model_fields)
    proofs = [cells[0].strip("`") for cells in rows(text("docs/receipt.md"), "`proof`")]
    assert proofs == list(get_args(Receipt.model_fields["proof"].annotation))


def test_the_findings_are_those_of_the_code() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "torchnet/bench/findings").glob("*.py"))
    table = rows(text("docs/bench.md"), "`kind`")
    named = [kind for cells in table for kind in re.findall(r"`([\w-]+)`", cells[0])]
    assert sorted(named) == sorted(set(re.findall(r'kind="([\w-]+)"', sources)))


def test_the_ports_are_those_of_the_code() -> None:
    table = rows(text("docs/ports.md"), "port")
    shown = [cells[0] for cells in table]
    first, last = constants.STORE_PORTS[0], constants.STORE_PORTS[-1]
    assert shown == [str(constants.JOIN_PORT)] * 2 + [f"{first} to {last}", "any"]


def test_the_time_for_a_checkpoint_is_the_codes() -> None:
    latest = worker_processes.CHILDREN_SECONDS
    default = next(field.default for field in FIELDS if field.path == "run.grace")
    page = " ".join(text("docs/launch.md").split())
    assert f"{latest:g} s before `--grace` ends" in page
    assert f"a shorter `--grace` than {2 * latest:g} s" in page
    assert f"{float(default.removesuffix('s')) - latest:g} s by default" in page


def test_the_objects_are_those_of_a_launch(torchnet: Callable[..., Result], tmp_path: Path) -> None:
    """Every kind that is rendered, and every option that leaves one out."""
    (tmp_path / "train.py").touch()
    words = ("--on", "kubernetes", "--image", "example.com/torch:2.11", "--network", "backend-network")
    listed = {cells[0]: cells[3] for cells in rows(text("docs/kubernetes.md"), "kind")}

    def rendered(*more: str) -> set[str]:
        done = torchnet("launch", "--dry-run", "-o", "json", *words, *more, "train.py", cwd=tmp_path)
        assert done.code == 0, done.stderr
        items = json.loads(done.stdout)["items"]
        return {"Job, JobSet or Pods" if item["kind"] in ("Job", "Pod") else item["kind"] for item in items}

    assert rendered("--multi-network-policy") == set(listed)
    for option, value in (
        ("--token-secret", "x"),
        ("--network-policy", "none"),
        ("--static-ips", "fcbb::1-fcbb::2/64"),
    ):
        missing = {kind for kind, omitted in listed.items() if f"`{option}" in omitted}
        assert missing
        assert rendered(option, value) == set(listed) - missing - {"MultiNetworkPolicy"}


def test_deletion_without_torchnet_names_each_kind() -> None:
    """But for those that only some clusters have, which the sentence above the command names."""
    page = text("docs/kubernetes.md")
    (words,) = [words for words in shell_lines(page) if words[:2] == ["kubectl", "delete"]]
    optional = {"jobsets", "multi-networkpolicies"}
    assert {*words[-1].split(",")} == {kind.plural for kind in KINDS if kind not in FORMER_KINDS} - optional
    assert all(name in page for name in optional)


def test_the_layers_are_those_of_the_contract() -> None:
    table = rows(text("docs/architecture.md"), "packages")
    shown = [re.findall(r"`(\w+)/`", cells[0]) for cells in table]
    contract = text("pyproject.toml").partition('name = "Imports run downward only"')[2].partition("]\n\n")[0]
    layers = [re.findall(r"\((\w+)\)", line) for line in re.findall(r'^    "(.*)",$', contract, re.MULTILINE)]
    packages = [[name for name in layer if (ROOT / "torchnet" / name).is_dir()] for layer in layers]
    assert [sorted(one) for one in shown] == [sorted(one) for one in packages if one]
