"""What files contain: manifests, configurations, parts of them, and the guide's snippets as they stand."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from tests.unit.attachments import config, plugin
from tests.unit.manifested import CASES, IDS
from torchnet.k8s.addons.addon_options import BACKEND, EXAMPLE, parse
from torchnet.k8s.addons.catalog import render
from torchnet.k8s.attachments.lint import Lint, lint
from torchnet.k8s.attachments.lint_documents import read_documents
from torchnet.yaml_io import YamlError, as_json, as_yaml

NAD = {"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition"}


def read(text: str, name: str = "FILE") -> Lint:
    found = read_documents(name, text.encode())
    return lint(found.definitions, found.requests)


# -- what torchnet renders ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "given"), CASES, ids=IDS)
@pytest.mark.parametrize("form", ["yaml", "json"])
def test_torchnets_own_manifests_have_no_findings(form: str, name: str, given: dict[str, Any]) -> None:
    objects, head = render(name, parse(name, given))
    found = read(as_json(objects) if form == "json" else as_yaml(objects, head))
    assert (found.findings, found.skipped) == ((), ())
    assert bool(found.checked) is (name in (BACKEND, EXAMPLE))


# -- forms -------------------------------------------------------------------------------------------------------


def test_a_list_as_kubectl_prints_it() -> None:
    item = NAD | {"metadata": {"name": "a", "namespace": "ml"}, "spec": {"config": "{"}}
    assert read(json.dumps({"apiVersion": "v1", "kind": "List", "items": [item, item]})).checked == (
        "ml/a",
        "ml/a",
    )


def test_a_configuration_by_itself_in_json_and_yaml() -> None:
    for text in (json.dumps(config()), yaml.safe_dump(config())):
        assert (read(text).checked, read(text).findings) == (("FILE",), ())


def test_a_file_that_begins_with_a_brace_and_is_no_json() -> None:
    found = read('{\n  "type": "ipvlan",\n}')
    assert "line 3, column 1" in found.faults[0].text


def test_the_pods_of_workloads_are_found() -> None:
    annotations = {"k8s.v1.cni.cncf.io/networks": "net"}
    template = {
        "metadata": {"annotations": annotations},
        "spec": {"containers": [{"resources": {"limits": {"cpu": 0.5}}}]},
    }
    job = {"kind": "Job", "metadata": {"name": "j", "namespace": "ml"}, "spec": {"template": template}}
    cron = {
        "kind": "CronJob",
        "metadata": {"name": "c"},
        "spec": {"jobTemplate": {"spec": {"template": template}}},
    }
    found = read("---\n".join(map(yaml.safe_dump, (job, cron))))
    assert found.checked == ("Job j", "CronJob c")


def test_a_line_of_the_configuration_is_named_as_one() -> None:
    text = '{\n  "type": "ipvlan"\n  "master": "ens5"\n}'
    (fault,) = read(yaml.safe_dump(NAD | {"metadata": {"name": "a"}, "spec": {"config": text}})).faults
    assert fault.text.endswith("at line 3, column 3 of spec.config")
    assert read(text).faults[0].text.endswith("at line 3, column 3")


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_a_number_that_json_does_not_have_has_a_position(constant: str) -> None:
    text = f'{{"name": "NaN \\" Infinity",\n  "mtu": {constant}, "x": NaN}}'
    (fault,) = read(text).faults
    assert fault.text == f"the configuration is not JSON: {constant} is not allowed at line 2, column 10"


@pytest.mark.parametrize("value", [5, {"type": "ipvlan"}, ["{}"], True, 0, {}])
def test_a_configuration_that_is_not_text_is_a_fault(value: object) -> None:
    for body in (NAD | {"metadata": {"name": "a"}, "spec": {"config": value}}, {"spec": {"config": value}}):
        found = read(yaml.safe_dump(body))
        (fault,) = found.faults
        assert (fault.field, fault.text, fault.blocks) == ("spec.config", "not text", True)
        assert "config: |" in fault.fix
        assert not found.skipped


@pytest.mark.parametrize("spec", [{}, {"config": ""}, {"config": None}])
def test_an_attachment_without_a_configuration_is_no_fault(spec: object) -> None:
    found = read(yaml.safe_dump(NAD | {"metadata": {"name": "a"}, "spec": spec}))
    assert not found.faults
    assert len(found.skipped) == 1


def test_leading_blank_lines_count() -> None:
    assert "line 5, column 1" in read('\n\n{\n  "type": "ipvlan",\n}').faults[0].text


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('[{"name": "net", "ips": ["fd00::1"]}]', ["[0].interface", "[0].ips[0]"]),
        ('\n[{"name": "net" "interface": "net1"}]', [""]),
    ],
)
def test_an_annotation_by_itself(text: str, found: list[str]) -> None:
    result = read(text, "networks.json")
    assert [(one.where, one.field) for one in result.findings] == [
        ("networks.json", field) for field in found
    ]
    if found == [""]:
        assert "line 2, column 17" in result.findings[0].text


def test_a_list_of_manifests() -> None:
    item = NAD | {"metadata": {"name": "a", "namespace": "ml"}, "spec": {"config": "{"}}
    assert read(json.dumps([item])).checked == ("ml/a",)


# -- the files of a node -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "is_single"),
    [
        ("net.conf", True),
        ("/etc/cni/multus/net.d/net.json", True),
        ("net.json", False),
        ("net.conflist", False),
    ],
)
def test_a_file_with_one_plugin_stays_one(name: str, is_single: bool) -> None:
    """Of a list in such a file, Multus says "missing 'type'", and does not read those after it."""
    found = read(json.dumps({"cniVersion": None, "name": "net", **plugin()}), name)
    assert [one.field for one in found.findings] == ["cniVersion", "plugins"]
    assert bool(found.findings[1].changes) is not is_single
    assert (".conflist" in found.findings[1].fix) is is_single
    (corrected,) = found.corrections.values()
    assert ("plugins" in corrected) is not is_single
    listed = read(json.dumps(config()), name)
    assert [one.field for one in listed.faults] == ["plugins"] * is_single


def test_the_name_of_a_file_is_not_removed() -> None:
    found = read(json.dumps(config(name="a b")), "net.conflist")
    assert [(one.field, one.changes) for one in found.findings] == [("name", ())]


@pytest.mark.parametrize("text", ["a: [", "\x00", "a: &x 1\nb: *x", "key: !!python/object:os.x {}"])
def test_what_is_no_yaml_is_refused(text: str) -> None:
    with pytest.raises(YamlError):
        read(text)


@pytest.mark.parametrize(
    "text", ["", "7", "[1, 2]", "a: b", "data: x", "spec: x", "kind: NetworkAttachmentDefinition"]
)
def test_other_documents_are_no_error(text: str) -> None:
    read(text)


# -- the guide's snippets, as they stand ---------------------------------------------------------------------------

IPVLAN = """\
spec:
  config: |
    {
      "type": "ipvlan",
      "master": "ens5",
      "mode": "l3",
      "ipam": { ... }
    }
"""
MACVLAN = """\
spec:
  config: |
    {
      "type": "macvlan",
      "master": "ens5",
      "mode": "bridge",
      "ipam": { ... }
    }
"""
WHEREABOUTS = """\
"ipam": {
  "type": "whereabouts",
  "range": "fcbb:0:0800:ffff::/64",
  "enable_ipv6": true
}
"""
HOST_LOCAL = """\
"ipam": {
  "type": "host-local",
  "ranges": [[{"subnet": "fcbb:0:0800:ffff::/64"}]]
}
"""
STATIC = """\
annotations:
  k8s.v1.cni.cncf.io/networks: |
    [{"name": "backend-network", "ips": ["fcbb:0:0800:ffff::50"]}]
"""


@pytest.mark.parametrize(
    ("snippet", "found"),
    [
        (IPVLAN, [("fault", ""), ("fault", "cniVersion")]),
        (MACVLAN, [("fault", ""), ("fault", "cniVersion")]),
        (WHEREABOUTS, [("warning", "ipam.enable_ipv6")]),
        (HOST_LOCAL, [("fault", "ipam.ranges")]),
        (STATIC, [("warning", "[0].interface"), ("fault", "[0].ips[0]")]),
    ],
)
def test_each_snippet_of_the_guide(snippet: str, found: list[tuple[str, str]]) -> None:
    assert [(one.level, one.field) for one in read(snippet).findings] == found


def test_a_placeholder_is_named_with_its_line_and_column() -> None:
    assert "line 5, column 13" in read(IPVLAN).findings[0].text


def filled(snippet: str, ipam: str) -> str:
    """A snippet of the guide with one of its own IPAM options in place of ``{ ... }``."""
    inner = re.sub(r"\n", "\n      ", ipam.strip().removeprefix('"ipam": '))
    return snippet.replace("{ ... }", inner)


@pytest.mark.parametrize(
    ("snippet", "ipam", "found"),
    [
        (IPVLAN, WHEREABOUTS, ["!cniVersion", "ipam.enable_ipv6", "mode"]),
        (IPVLAN, HOST_LOCAL, ["!cniVersion", "ipam.ranges", "mode"]),
        (MACVLAN, WHEREABOUTS, ["!cniVersion", "plugins", "ipam.enable_ipv6"]),
        (MACVLAN, HOST_LOCAL, ["!cniVersion", "plugins", "ipam.ranges"]),
        (IPVLAN, '{"type": "static"}', ["!cniVersion", "capabilities.ips", "mode"]),
    ],
)
def test_the_guides_options_together(snippet: str, ipam: str, found: list[str]) -> None:
    result = read(filled(snippet, ipam))
    assert [("!" if one.blocks else "") + one.field for one in result.findings] == found
    (corrected,) = result.corrections.values()
    again = read(json.dumps(corrected))
    assert again.faults == ()
    assert corrected["cniVersion"] == "1.0.0"


def test_the_guides_address_on_the_guides_attachment() -> None:
    nad = NAD | {"metadata": {"name": "backend-network"}}
    nad |= yaml.safe_load(filled(IPVLAN, '{"type": "static"}'))
    pod = {"kind": "Pod", "metadata": {"name": "p", **yaml.safe_load(STATIC)}}
    found = read("---\n".join(map(yaml.safe_dump, (nad, pod))))
    of_pod = [one for one in found.findings if one.where == "Pod p"]
    assert [one.field for one in of_pod] == ["[0].interface", "[0].ips[0]", "[0].ips"]
    assert "capabilities" in of_pod[-1].text
