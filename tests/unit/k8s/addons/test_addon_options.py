"""Options of ``torchnet manifests``: hostile values, what does not fit together, and everything wrong at once."""

from __future__ import annotations

import json
import time

import pytest
import yaml

from torchnet.cli import main
from torchnet.errors import UsageError
from torchnet.k8s.addons.addon_options import NAMES, TABLE, Options, backend, parse

CAPTURE = pytest.CaptureFixture[str]
HOSTILE = [
    "",
    " ",
    "a b",
    "a\nb",
    "a\n",
    "\na",
    "a: {}",
    "../x",
    "/etc/passwd",
    "x" * 64,
    "UPPER",
    "-a",
    "a-",
    ".",
    "..",
    "a\0b",
    "\x1b[31mred",
    "\u202egnp",
    "$(id)",
    "`id`",
    "'; rm -rf /",
    "é",
    "\udcff",
    "%s{}",
    "x" * 100_000,
]
# What is hostile elsewhere and a value like any other here.
FINE = {(field, text) for field in ("master", "bridge") for text in ("UPPER", "a-")} | {("registry", "UPPER")}


def parse_refusal(capsys: CAPTURE, *words: str) -> list[str]:
    """The lines on stderr of a command line that is refused."""
    assert main(["manifests", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.isprintable() or all(line.isprintable() for line in err.splitlines())
    return err.splitlines()


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text)[:20])
def test_hostile_values_are_refused_by_every_flag(text: str) -> None:
    for option in (one for one in TABLE if not one.switch):
        for name in option.names:
            given = {option.field: [text] if option.repeat else text}
            if (option.field, text) in FINE:
                continue
            with pytest.raises(UsageError) as caught:
                parse(name, given)
            assert option.flag in str(caught.value), (option.flag, text)
            assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("name", "a" * 57),  # with -slices it has 64
        *(("master", text) for text in ("e" * 16, "a/b", "a:b", "eth 0", "%d")),
        *(
            ("registry", text)
            for text in (
                "https://r.example",
                "r.example/A",
                "r.example:",
                "r.example//x",
                "r@x",
                "r.example/a..b",
            )
        ),
        *(
            ("range", text)
            for text in ("fcbb::", "fcbb::/129", "fcbb::/127", "::/0", "fe80::/64", "ff02::/16")
        ),
        *(
            ("range", text)
            for text in ("10.0.0.0", "10.0.0.0/33", "127.0.0.0/8", "1.2.3.4-1.2.3.9/24", "fcbb::%1/64")
        ),
        *(("mtu", text) for text in ("1279", "65536", "-1", "1e3", "9000 ", "९०००", "9_000")),
        *(
            ("slices", text)
            for text in ("n", "=fcbb::/80", "N=fcbb::/80", "n=", "n=x", "a..b=fcbb::/80", "a/b=fcbb::/80")
        ),
        *(
            ("slices", f"n=fcbb:0:800:ffff:1::/80,{text}")
            for text in (
                "",
                "via",
                "via=",
                "via=x",
                "gw=fcbb::1",
                "via=ff02::1",
                "via=::1",
                "via=fe80::1%ens5",
                "via=a,b",
            )
        ),
        *(
            ("log_file", text)
            for text in ("x.log", "/var/log", "/var/log/../x", "/var/log/a b", "/etc/x", "/var/log//x")
        ),
    ],
)
def test_values_of_the_wrong_kind(field: str, text: str) -> None:
    with pytest.raises(UsageError, match="backend-network"):
        parse("backend-network", {field: [text] if field == "slices" else text})


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "r.example/x",
        "x:latest",
        "r:5000/x",
        "A/b:1",
        "r.example/B:1",
        "x/../y:1",
        "x:1\n",
        "x@sha256:12",
        # What a runtime would refuse on each node (distribution/reference).
        "r.example/a..b:1",
        "r.example/a.-b:1",
        "r.example/a___b:1",
        f"r.example/{'a' * 250}:1",
    ],
)
def test_an_image_without_a_version_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--image"):
        parse("pytorch-pod-example", {"image": text})


@pytest.mark.parametrize(
    "text",
    [
        "x:1",
        "r.example:5000/a/b:v1.2-rc",
        f"r.example/x@sha256:{'0' * 64}",
        "[fd00::5]:5000/a__b/c--d:1",
        f"r.example/{'a' * 245}:{'1' * 128}",
    ],
)
def test_an_image_by_version_is_taken_as_it_is(capsys: CAPTURE, text: str) -> None:
    assert main(["manifests", "pytorch-pod-example", "--image", text]) == 0
    pods = [body for body in yaml.safe_load_all(capsys.readouterr().out) if body["kind"] == "Pod"]
    used = {c["image"] for pod in pods for c in pod["spec"]["containers"] + pod["spec"]["initContainers"]}
    assert used == {text}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--type macvlan --mode l2", "valid: bridge, private, vepa"),
        ("--type bridge --mode l2", "it has no modes"),
        ("--type bridge --master ens5", "--master"),
        ("--bridge br0", "--bridge"),
        ("--mode l3", "--slice NODE=CIDR"),
        ("--mode l3s --ipam whereabouts --slice a=fcbb:0:800:ffff:1::/80", "--mode l3s"),
        ("--ipam host-local", "--slice NODE=CIDR"),
        ("--ipam static --slice a=fcbb:0:800:ffff:1::/80", "--slice"),
        ("--ipam static --exclude fcbb:0:800:ffff::/80", "requires --ipam whereabouts"),
        ("--ipam static --log-file /var/log/x", "requires --ipam whereabouts"),
        ("--exclude fcbb:0:800:fff0::/80", "is not within the range"),
        ("--exclude fcbb:0:800:ffff::/64", "--exclude"),
        ("--range fcbb:0:800:ffff::/64 --slice a=fcbb:0:800:1::/80", "is not within the range"),
        ("--range 10.0.0.0/8 --slice a=fcbb::/80", "is not within the range"),
        ("--slice a=fcbb:0:800:ffff:1::/80 --slice b=fcbb:0:800:ffff:1::/96", "overlap"),
        ("--slice a=fcbb:0:800:ffff:1::/80 --slice a=fcbb:0:800:ffff:2::/80", "duplicate node a"),
        ("--registry r.example --workers 3", "--workers"),
    ],
)
def test_what_does_not_fit_together(capsys: CAPTURE, words: str, said: str) -> None:
    first, *lines, fix = parse_refusal(capsys, "backend-network", *words.split())
    assert first == "torchnet: invalid options for backend-network: 1 error"
    assert len(lines) == 1
    assert said in lines[0]
    assert fix == "  fix: torchnet manifests --help"


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        ("", []),
        ("--namespace-isolation", ["--namespace-isolation=true"]),
        (
            "--namespace-isolation --global-namespace a --global-namespace b",
            ["--namespace-isolation=true", "--global-namespaces=a,b"],
        ),
    ],
)
def test_multus_keeps_namespaces_apart(capsys: CAPTURE, words: str, arguments: list[str]) -> None:
    assert main(["manifests", "multus", *words.split()]) == 0
    text = capsys.readouterr().out
    assert f"torchnet manifests multus-install {words}".rstrip() in text
    (daemon,) = [body for body in yaml.safe_load_all(text) if body["kind"] == "DaemonSet"]
    found = daemon["spec"]["template"]["spec"]["containers"][0]["args"]
    assert [word for word in found if "namespace" in word] == arguments


def test_namespaces_are_global_only_beside_isolated_ones(capsys: CAPTURE) -> None:
    _, line, _ = parse_refusal(capsys, "multus", "--global-namespace", "a")
    assert "requires --namespace-isolation" in line
    _, line, _ = parse_refusal(capsys, "whereabouts", "--namespace-isolation")
    assert "--namespace-isolation is invalid for whereabouts-install; it applies to multus-install" in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--run-as root", '--run-as "root": it has a part that is not the number of a user'),
        ("--fs-group -1", '--fs-group "-1": it is not the number of a user or group'),
        ("--range 10.0.0.0/24", "--ipam static"),
        ("--ipam static --range 10.0.0.0/29 --workers 9", "too few addresses for 10 pods"),
        ("--image r.example/x:1 --registry r.example", "--registry and --image"),
        ("--type macvlan", "--type is invalid for pytorch-pod-example"),
    ],
)
def test_what_does_not_fit_together_in_the_example(capsys: CAPTURE, words: str, said: str) -> None:
    _, line, _ = parse_refusal(capsys, "pytorch-pod-example", *words.split())
    assert said in line


def test_everything_that_is_wrong_is_told_at_once(capsys: CAPTURE) -> None:
    words = (
        "--type token-ring --mtu 1 --name A --master a/b --slice x --ipam dhcp --workers 2 -o xml too many"
    )
    lines = parse_refusal(capsys, "backend-network", *words.split())
    assert lines[0] == "torchnet: invalid options for backend-network: 10 errors"
    for word in (
        "--type",
        "--mtu",
        "--name",
        "--master",
        "--slice",
        "--ipam",
        "--workers",
        "-o",
        '"too"',
        '"many"',
    ):
        assert len([line for line in lines if line.startswith(f"  {word} ")]) == 1, word


@pytest.mark.parametrize(
    "name", ["Multus", "multus.yaml", "", "../multus-install", "a\nb", "x" * 100_000], ids=repr
)
def test_a_manifest_that_is_none_is_told_which_there_are(capsys: CAPTURE, name: str) -> None:
    line, fix = parse_refusal(capsys, name)
    assert all(known in line for known in NAMES)
    assert "torchnet manifests" in fix
    assert len(line) < 400


def test_flags_without_a_name(capsys: CAPTURE) -> None:
    assert "multus-install" in parse_refusal(capsys, "--type", "macvlan")[-1]


def test_ranges_are_normalised(capsys: CAPTURE) -> None:
    words = ("--range", "FCBB:0:0800:FFFF:0:0:0:5/64", "--exclude", "fcbb:0:0800:ffff::f0/124")
    assert main(["manifests", "backend-network", *words]) == 0
    (body,) = yaml.safe_load_all(capsys.readouterr().out)
    ipam = json.loads(body["spec"]["config"])["plugins"][0]["ipam"]
    assert (ipam["range"], ipam["exclude"]) == ("fcbb:0:800:ffff::/64", ["fcbb:0:800:ffff::f0/124"])


def test_flags_may_stand_before_the_name_and_after(capsys: CAPTURE) -> None:
    assert main(["manifests", "--type", "macvlan", "backend-network", "--mtu=1500"]) == 0
    (body,) = yaml.safe_load_all(capsys.readouterr().out)
    plugin = json.loads(body["spec"]["config"])["plugins"][0]
    assert (plugin["type"], plugin["mode"], plugin["mtu"]) == ("macvlan", "bridge", 1500)


@pytest.mark.parametrize("name", ["backend-network", "pytorch-pod-example", "rbac"])
def test_n_is_the_namespace_as_everywhere(capsys: CAPTURE, name: str) -> None:
    texts = []
    for flag in ("-n", "--namespace"):
        assert main(["manifests", name, flag, "ml"]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
    spaces = {body["metadata"].get("namespace") for body in yaml.safe_load_all(texts[0])}
    assert "ml" in spaces <= {"ml", None}


def test_a_thousand_nodes_are_checked_in_a_moment() -> None:
    slices = [f"node{n}=fcbb:0:800:ffff:{n:x}::/80" for n in range(1000)]
    began = time.monotonic()
    options = parse("backend-network", {"slices": slices})
    assert time.monotonic() - began < 2
    assert len(options.slices) == 1000


def test_the_defaults_are_right_by_themselves() -> None:
    assert backend(Options(), {}) == []
    assert all(parse(name, {}) == Options() for name in NAMES)
