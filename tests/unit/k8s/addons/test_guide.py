"""The guide in manifests/: its files and commands exist, its snippets are what torchnet renders."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.manifested import file_of, nodes_of
from torchnet.cli import main
from torchnet.k8s.addons.addon_options import BACKEND, parse
from torchnet.k8s.addons.catalog import FILES, render

FOLDER = Path(__file__).resolve().parents[4] / "manifests"
TEXT = (FOLDER / "multus-guide.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(.*)\n((?:.*\n)*?)^```$", TEXT, re.MULTILINE)
KINDS = {"", "bash", "bash choice", "bash node", "bash cilium", "text", "json", "yaml"}
# What a guide to Multus has to answer.
HEADINGS = """
    Architecture Overview / Prerequisites / Installation Steps / Step 1: Install Multus CNI /
    Step 2: Install Whereabouts IPAM (Recommended) / Step 3: Create NetworkAttachmentDefinition /
    Step 4: Deploy Test Pods / Network Attachment Definition Options / Option 1: IPVLAN (Recommended for VMs) /
    Option 2: MACVLAN / Option 3: Bridge (for complex scenarios) / IPAM Options /
    Whereabouts (Cluster-wide IPAM) / Host-local (Per-node IPAM) / Static IP Assignment / Verifying the Setup /
    Check Multus logs / Check pod network status / Test connectivity between pods on backend network /
    Troubleshooting / Pod stuck in ContainerCreating / No secondary interface in pod / IP address conflicts /
    Files in this Directory / References
"""


def commands(*kinds: str) -> list[str]:
    """The commands of the blocks of these kinds, continued lines joined, comments left out."""
    found = []
    for kind, block in BLOCKS:
        if kind in kinds:
            joined = re.sub(r"(\\|\|)\n\s*", lambda match: "" if match[1] == "\\" else "| ", block)
            found += [line for line in joined.splitlines() if line and not line.startswith("#")]
    return found


ALL = ("bash", "bash choice", "bash node", "bash cilium")
OURS = [line.partition("|")[0] for line in commands(*ALL) if line.startswith("torchnet ")]


def test_every_block_says_what_it_is() -> None:
    assert {kind for kind, _ in BLOCKS} == KINDS
    assert [kind for kind, _ in BLOCKS].count("") == 1, "the picture"
    assert TEXT.count("```") == 2 * len(BLOCKS)


def test_every_step_and_question_is_answered() -> None:
    headings = re.findall(
        r"^#+ (.*)$", re.sub(r"^```.*\n(?:.*\n)*?^```$", "", TEXT, flags=re.MULTILINE), re.MULTILINE
    )
    asked = [" ".join(one.split()) for one in HEADINGS.split(" /")]
    assert [one for one in asked if one not in headings] == []
    assert len(set(headings)) == len(headings)


def test_output_follows_a_command() -> None:
    kinds = [kind for kind, _ in BLOCKS]
    for place, kind in enumerate(kinds):
        if kind == "text":
            assert kinds[place - 1] == "bash"


@pytest.mark.parametrize("kind", ALL)
def test_every_block_of_commands_is_a_script(kind: str) -> None:
    for one, block in BLOCKS:
        if one == kind:
            checked = subprocess.run(["bash", "-n"], input=block, text=True, capture_output=True, check=False)
            assert (checked.returncode, checked.stderr) == (0, ""), block


@pytest.mark.parametrize("line", OURS)
def test_our_own_commands_run(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    program, *words = shlex.split(line)
    assert program == "torchnet"
    assert main(words) == 0
    assert capsys.readouterr().out


def test_there_are_commands_of_our_own() -> None:
    assert len(OURS) > 5


def test_the_files_are_listed_and_named_files_exist() -> None:
    there = {path.name for path in FOLDER.iterdir()}
    assert set(re.findall(r"^\| `([a-z0-9.-]+\.(?:yaml|md))` \|", TEXT, re.MULTILINE)) == there
    applied = [word for line in commands(*ALL) for word in line.split() if word.endswith(".yaml")]
    assert set(applied) <= there
    assert {
        "multus-install.yaml",
        "whereabouts-install.yaml",
        "backend-network-nad.yaml",
        "pytorch-pod-example.yaml",
    } <= {word for line in commands("bash") if line.startswith("kubectl apply") for word in line.split()}


def test_named_objects_are_in_the_files() -> None:
    bodies = [body for name in FILES for body in yaml.safe_load_all((FOLDER / name).read_text())]
    there = {(body["kind"].lower(), body["metadata"]["name"]) for body in bodies}
    named = re.findall(
        r"\b(daemonset|deployment|pod)/([a-z0-9-]+)", "\n".join(commands("bash", "bash choice"))
    )
    assert len(named) > 5
    assert [one for one in named if one not in there] == []
    for label in re.findall(r"-l app=(\S+)", "\n".join(commands(*ALL))):
        assert any(
            body["spec"].get("template", {}).get("metadata", {}).get("labels", {}).get("app") == label
            for body in bodies
            if "spec" in body
        ), label
    scripts = next(body["data"] for body in bodies if body["metadata"]["name"] == "pytorch-example")
    for script in re.findall(r"/example/(\w+\.py)", TEXT):
        assert script in scripts


def test_links_within_the_guide_lead_somewhere() -> None:
    headings = re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    links = re.findall(r"\]\(#([^)]+)\)", TEXT)
    assert links
    assert [link for link in links if link not in anchors] == []


def snippets(kind: str) -> list[Any]:
    return [
        json.loads(block) if kind == "json" else yaml.safe_load(block) for one, block in BLOCKS if one == kind
    ]


def rendered(**given: Any) -> dict[str, Any]:
    """The configuration that torchnet renders; with parts of the range, the first node's."""
    manifests, _ = render(BACKEND, parse(BACKEND, given))
    first = manifests[0].body
    parts = dict(manifests[1].body) if "spec" not in first else {}
    text = file_of(parts, nodes_of(parts)[0]) if parts else first["spec"]["config"]
    configuration: dict[str, Any] = json.loads(text)
    return configuration


def test_its_attachments_are_what_torchnet_renders() -> None:
    configurations = [json.loads(one["spec"]["config"]) for one in snippets("yaml") if "spec" in one]
    assert configurations == [rendered(), rendered(type="macvlan")]


def test_its_ipam_sections_are_what_torchnet_renders() -> None:
    whereabouts, local = snippets("json")
    assert whereabouts == rendered()["plugins"][0]["ipam"]
    assert local == rendered(slices=["node1=fcbb:0:800:ffff:1::/80"])["plugins"][0]["ipam"]


def test_its_fixed_address_has_a_prefix_length_and_its_attachment_the_capability() -> None:
    (annotation,) = [one["annotations"] for one in snippets("yaml") if "annotations" in one]
    (network,) = json.loads(annotation["k8s.v1.cni.cncf.io/networks"])
    assert all(re.fullmatch(r"fcbb:0:800:ffff:8000::[0-9a-f]+/64", address) for address in network["ips"])
    (attachment,) = yaml.safe_load_all((FOLDER / f"{network['name']}-nad.yaml").read_text())
    assert attachment["metadata"]["name"] == network["name"]
    plugin = json.loads(attachment["spec"]["config"])["plugins"][0]
    assert plugin["capabilities"] == {"ips": True}
    assert plugin["ipam"] == {"type": "static"}
