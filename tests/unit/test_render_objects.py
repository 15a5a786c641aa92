"""What Kubernetes is told of a job: every object, in each of the three forms."""

from __future__ import annotations

import base64
import copy
import json
import re
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.pod_security import containers, restricted
from tests.unit.rendered import CODE, FORMS, job, only, pod_template, render
from torchnet import names
from torchnet.agent.flags import parse
from torchnet.errors import UsageError
from torchnet.manifests.emit import Manifest, as_yaml
from torchnet.render.code import Code
from torchnet.render.command import literal
from torchnet.render.objects import objects, pod_of, workload
from torchnet.spec.pods import parse_addresses

each_form = pytest.mark.parametrize("form", FORMS)


def text_of(found: list[dict[str, Any]]) -> str:
    return as_yaml([Manifest(body) for body in found])


def command_of(spec: dict[str, Any], name: str) -> list[str]:
    command: list[str] = next(one for one in containers(spec) if one["name"] == name)["command"]
    return command


def env_of(spec: dict[str, Any], name: str = "worker") -> dict[str, Any]:
    container = next(one for one in containers(spec) if one["name"] == name)
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in container["env"]}


@each_form
def test_the_same_bytes_each_time(form: str) -> None:
    more: dict[str, Any] = {
        "labels": {"b": "1", "a": "2"},
        "node_selector": {"y": "1", "x": "2"},
        "job_env": {"B": "1", "A": "2"},
    }
    turned: dict[str, Any] = {key: dict(reversed(value.items())) for key, value in more.items()}
    assert text_of(render(workload=form, **more)) == text_of(render(workload=form, **turned))


@each_form
def test_what_is_written_is_read_back(form: str) -> None:
    found = render(workload=form)
    assert list(yaml.safe_load_all(text_of(found))) == found


@pytest.mark.parametrize("form", ["job", "jobset"])
def test_objects_do_not_grow_with_the_workers(form: str) -> None:
    few, many = (len(text_of(render(nnodes, workload=form))) for nnodes in (4, 10_000))
    assert many - few < 40


def test_of_plain_pods_each_has_one_size() -> None:
    sizes = [len(text_of([body])) for body in render(200, workload="pods") if body["kind"] == "Pod"]
    assert len(sizes) == 200
    assert max(sizes[1:]) - min(sizes[1:]) < 20


@each_form
def test_the_order_of_creation(form: str) -> None:
    kinds = [body["kind"] for body in render(2, workload=form)]
    before = ["ConfigMap", "Secret", "ServiceAccount", "Role", "RoleBinding", "NetworkPolicy"]
    assert kinds == before + {"job": ["Job"], "jobset": ["JobSet"], "pods": ["Pod", "Pod"]}[form]


@each_form
def test_one_label_and_the_users_own_are_on_everything(form: str) -> None:
    found = render(
        workload=form, labels={"team": "a"}, annotations={"x.example/y": "z"}, multi_network_policy=True
    )
    for body in (*found, pod_of(found, 1)):
        labels = body["metadata"]["labels"]
        assert labels["torchnet/run"] == "train"
        assert {"team": "a", **names.COMMON_LABELS}.items() <= labels.items()
        assert body["metadata"]["annotations"]["x.example/y"] == "z"
        assert body["metadata"]["namespace"] == "ml"
    template = pod_template(found)["metadata"]
    assert (template["labels"]["team"], template["annotations"]["x.example/y"]) == ("a", "z")


@each_form
def test_what_each_worker_is_called(form: str) -> None:
    found = render(3, workload=form)
    made = pod_of(found, 2)
    hostname = made["spec"].get("hostname", made["metadata"]["name"])
    assert hostname == {"job": "train-2", "jobset": "train-w-0-2", "pods": "train-2"}[form]
    label = names.NODE_RANK_LABEL if form == "pods" else names.INDEX_LABEL
    assert made["metadata"]["labels"][label] == "2"
    for phase in ("prepare", "worker"):
        assert env_of(made["spec"], phase)["JOB_COMPLETION_INDEX"] == "2"
        assert "train-$(JOB_COMPLETION_INDEX)" in command_of(made["spec"], phase)
    assert json.loads(workload(found)["metadata"]["annotations"][names.SPEC_ANNOTATION]) == {
        "nnodes": 3,
        "nproc_per_node": 1,
        "version": "0.1.0",
    }


def test_a_dry_runs_pod_leaves_the_template_as_it_was() -> None:
    for form in FORMS:
        found = render(workload=form)
        before = copy.deepcopy(found)
        pod_of(found, 3)
        assert found == before


# -- the workloads


def test_a_failed_worker_does_not_take_the_others_along() -> None:
    spec = workload(render(7))["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 7, 7)
    assert spec["backoffLimitPerIndex"] == 0
    assert "backoffLimit" not in spec
    assert spec["podReplacementPolicy"] == "Failed"
    (rule,) = spec["podFailurePolicy"]["rules"]
    assert rule == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    assert "activeDeadlineSeconds" not in spec


def test_a_jobset_restarts_the_gang_and_spells_out_its_network() -> None:
    found = render(workload="jobset", job_run={"max_restarts": 3})
    spec = workload(found)["spec"]
    assert spec["failurePolicy"] == {"maxRestarts": 3, "restartStrategy": "BlockingRecreate"}
    assert spec["network"] == {"enableDNSHostnames": True, "publishNotReadyAddresses": True}
    assert spec["replicatedJobs"][0]["template"]["spec"]["backoffLimitPerIndex"] == 0
    words = command_of(pod_template(found)["spec"], "worker")
    assert words[words.index("--max-restarts") + 1] == "0"
    field = env_of(pod_template(found)["spec"])["TORCHNET_START"]["fieldRef"]["fieldPath"]
    assert field == "metadata.labels['jobset.sigs.k8s.io/restart-attempt']"
    inside = command_of(pod_template(render(job_run={"max_restarts": 3}))["spec"], "worker")
    assert inside[inside.index("--max-restarts") + 1] == "3"


@each_form
def test_a_queue_is_kueues_label(form: str) -> None:
    found = render(workload=form, queue="team-a")
    assert workload(found)["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team-a"
    if form == "pods":
        pods = [body["metadata"] for body in found if body["kind"] == "Pod"]
        assert {pod["labels"]["kueue.x-k8s.io/pod-group-name"] for pod in pods} == {"train"}
        assert {pod["annotations"]["kueue.x-k8s.io/pod-group-total-count"] for pod in pods} == {"4"}


def test_names_without_room_are_refused() -> None:
    for run_id, form in (("a" * 62, "job"), ("a" * 52, "jobset"), ("1a", "jobset")):
        with pytest.raises(UsageError, match="run_id") as caught:
            objects(job(workload=form), run_id, "ml", "t", CODE)
        assert "--run-id" in str(caught.value)


# -- rights


def test_the_rights_are_just_what_discovery_needs() -> None:
    found = render()
    assert only(found, "Role")["rules"] == [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}
    ]
    assert only(found, "ServiceAccount")["automountServiceAccountToken"] is False
    assert only(found, "RoleBinding")["subjects"] == [
        {"kind": "ServiceAccount", "name": "train", "namespace": "ml"}
    ]


def test_an_account_that_exists_needs_no_rights() -> None:
    found = render(service_account="torchnet")
    assert not {"ServiceAccount", "Role", "RoleBinding"} & {body["kind"] for body in found}
    assert pod_template(found)["spec"]["serviceAccountName"] == "torchnet"


@each_form
def test_the_token_of_the_api_is_the_init_containers_alone(form: str) -> None:
    spec = pod_template(render(workload=form))["spec"]
    assert spec["automountServiceAccountToken"] is False
    mounts = {one["name"]: {mount["name"] for mount in one["volumeMounts"]} for one in containers(spec)}
    assert "api" in mounts["prepare"]
    assert "api" not in mounts["worker"]
    assert "token" in mounts["prepare"] & mounts["worker"]


def test_the_secret_is_where_it_belongs_and_nowhere_else() -> None:
    found = render()
    assert base64.b64decode(only(found, "Secret")["data"]["token"]) == b"the secret"
    rest = text_of([body for body in found if body["kind"] != "Secret"])
    assert "the secret" not in rest
    assert base64.b64encode(b"the secret").decode() not in rest
    named = render(token_secret="mine")
    assert "Secret" not in [body["kind"] for body in named]
    volume = next(one for one in pod_template(named)["spec"]["volumes"] if one["name"] == "token")
    assert volume["secret"]["secretName"] == "mine"


# -- fixed addresses


def test_with_fixed_addresses_nobody_asks_the_api() -> None:
    ranges = ["fcbb:0:800:ffff::100-fcbb:0:800:ffff::1ff/64", "10.0.0.1/24,10.0.0.2/24,10.0.0.7/24"]
    found = render(3, networks=("a", "other/b=x.example/vf"), static_ips=ranges)
    assert not {"ServiceAccount", "Role", "RoleBinding"} & {body["kind"] for body in found}
    pods = [body for body in found if body["kind"] == "Pod"]
    for index, pod in enumerate(pods):
        assert "serviceAccountName" not in pod["spec"]
        assert "api" not in {volume["name"] for volume in pod["spec"]["volumes"]}
        addresses = [parse_addresses(text, 3)[index] for text in ranges]
        assert json.loads(pod["metadata"]["annotations"][names.NETWORKS_ANNOTATION]) == [
            {"name": "a", "namespace": "ml", "interface": "net1", "ips": [addresses[0]]},
            {"name": "b", "namespace": "other", "interface": "net2", "ips": [addresses[1]]},
        ]
        words = command_of(pod["spec"], "prepare")
        assert words[words.index("--rank0") + 1] == "fcbb:0:800:ffff::100,10.0.0.1"
        assert "--address-source" not in words
        source = f"static:net1={addresses[0]},net2={addresses[1]}"
        assert env_of(pod["spec"], "prepare")["TORCHNET_ADDRESS_SOURCE"] == source
    assert pod_of(found, 2) == pods[2]


# -- the network


def test_rails_are_named_one_by_one() -> None:
    found = render(networks=("vf*3=x.example/vf", "ops/b"))
    template = pod_template(found)
    entries = json.loads(template["metadata"]["annotations"][names.NETWORKS_ANNOTATION])
    assert [(one["namespace"], one["name"], one["interface"]) for one in entries] == [
        *(("ml", "vf", f"net{number}") for number in (1, 2, 3)),
        ("ops", "b", "net4"),
    ]
    words = command_of(template["spec"], "worker")
    said = [words[number + 1] for number, word in enumerate(words) if word == "--attachment"]
    assert said == ["ml/vf@net1", "ml/vf@net2", "ml/vf@net3", "ops/b@net4"]
    worker = template["spec"]["containers"][0]["resources"]
    assert worker["requests"]["x.example/vf"] == worker["limits"]["x.example/vf"] == "3"
    assert "x.example/vf" not in template["spec"]["initContainers"][0]["resources"]["limits"]


def open_to(policy: dict[str, Any], protocol: str, port: int, *, own: bool) -> bool:
    """Whether a policy lets a peer in: of the run itself, or any other."""
    for rule in policy["spec"]["ingress"]:
        peers = rule.get("from")
        if peers is not None and not (
            own and peers == [{"podSelector": {"matchLabels": {"torchnet/run": "train"}}}]
        ):
            continue
        ports = rule.get("ports")
        if ports is None or any(
            one["protocol"] == protocol and one["port"] <= port <= one.get("endPort", one["port"])
            for one in ports
        ):
            return True
    return False


def test_policies_close_the_documented_ports_to_others_and_nothing_else() -> None:
    found = render(networks=("a", "b*2", "a"), multi_network_policy=True)
    eth0 = only(found, "NetworkPolicy")
    rails = [body for body in found if body["kind"] == "MultiNetworkPolicy"]
    assert [body["metadata"]["name"] for body in rails] == ["train-net1", "train-net2"]
    assert [body["metadata"]["annotations"][names.POLICY_ANNOTATION] for body in rails] == ["ml/a", "ml/b"]
    for policy in (eth0, *rails):
        assert policy["spec"]["podSelector"] == {"matchLabels": {"torchnet/run": "train"}}
        assert policy["spec"]["policyTypes"] == ["Ingress"]
        for protocol in ("TCP", "UDP"):
            for port in (1, 22, 29499, 29500, 29550, 29599, 29600, 65535):
                assert open_to(policy, protocol, port, own=True)
                assert open_to(policy, protocol, port, own=False) == (not 29500 <= port <= 29599)
    assert "MultiNetworkPolicy" not in [body["kind"] for body in render()]


# -- the pod


FIXED: dict[str, Any] = {"static_ips": ["10.0.0.1-10.0.0.9/24"]}


@pytest.mark.parametrize(
    "more",
    [*({"workload": form} | one for form in FORMS for one in ({}, {"code": "pvc:a/b"}, {"gpus": 8})), FIXED],
    ids=str,
)
def test_pod_security_restricted_holds(more: dict[str, Any]) -> None:
    found = render(volumes=["pvc:a:/a", "configmap:c:/c", "emptydir:/e"], secrets=["s:/s"], **more)
    assert list(restricted(pod_of(found)["spec"])) == []


def test_the_check_of_pod_security_finds_what_is_forbidden() -> None:
    spec = pod_template(render(security="rdma", volumes=["hostpath:/dev:/d"]))["spec"]
    found = " ".join(restricted(spec))
    for part in ("hostPath", "IPC_LOCK", "worker is root", "prepare may be root", "worker keeps"):
        assert part in found


def test_rdma_is_root_with_locked_memory() -> None:
    spec = pod_template(render(security="rdma"))["spec"]
    assert spec["securityContext"]["runAsUser"] == 0
    assert spec["containers"][0]["securityContext"]["capabilities"]["add"] == ["IPC_LOCK"]
    assert "add" not in spec["initContainers"][0]["securityContext"]["capabilities"]
    assert "HOME" not in env_of(spec)


@pytest.mark.parametrize(
    ("more", "requests", "limits"),
    [
        ({}, ("1", "2Gi"), ("1", "2Gi")),
        ({"job_nproc_per_node": 3}, ("3", "6Gi"), ("3", "6Gi")),
        ({"gpus": 8}, ("32", "128Gi"), ("32", "128Gi")),
        ({"cpus": "500m:2", "memory": "1Gi:4Gi"}, ("500m", "1Gi"), ("2", "4Gi")),
    ],
    ids=str,
)
def test_every_container_has_requests_and_limits(more: dict[str, Any], requests: Any, limits: Any) -> None:
    for one in containers(pod_template(render(**more))["spec"]):
        for what, expected in (("requests", requests), ("limits", limits)):
            assert (one["resources"][what]["cpu"], one["resources"][what]["memory"]) == expected
        gpus = one["resources"]["limits"].get("nvidia.com/gpu")
        assert gpus == (str(more["gpus"]) if "gpus" in more and one["name"] == "worker" else None)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, "1"),
        ({"gpus": 4}, "4"),
        ({"gpus": 4, "job_nproc_per_node": 2}, "2"),
        ({"gpus": 4, "job_nproc_per_node": "gpu"}, "4"),
        ({"cpus": "6:8", "job_nproc_per_node": "cpu"}, "6"),
        ({"cpus": "500m", "job_nproc_per_node": "cpu"}, "1"),
        ({"gpus": 2, "cpus": "6", "job_nproc_per_node": "auto"}, "2"),
        ({"cpus": "6", "job_nproc_per_node": "auto"}, "6"),
    ],
    ids=str,
)
def test_how_many_processes_a_worker_has(more: dict[str, Any], expected: str) -> None:
    words = command_of(pod_template(render(**more))["spec"], "worker")
    assert words[words.index("--nproc-per-node") + 1] == expected


def test_the_flags_in_common_reach_the_pod() -> None:
    found = render(
        volumes=["d=pvc:claim:/data:ro", "emptydir:1Gi:/scratch"],
        secrets=["keys", "files:/etc/files"],
        node_selector={"zone": "a"},
        tolerations=["gpu=yes:NoSchedule", "spot"],
        priority_class="high",
        spread="hard",
        image_pull_secrets=["pull"],
        shm_size="8Gi",
        job_env={"A": "1"},
        job_run={"grace": 2.5, "timeout": 3600, "start_timeout": 60},
    )
    spec = pod_template(found)["spec"]
    worker = spec["containers"][0]
    mounts = {mount["mountPath"]: mount for mount in worker["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert mounts["/data"] == {"name": "d", "mountPath": "/data", "readOnly": True}
    assert volumes["d"]["persistentVolumeClaim"] == {"claimName": "claim", "readOnly": True}
    assert volumes[mounts["/scratch"]["name"]]["emptyDir"] == {"sizeLimit": "1Gi"}
    assert volumes[mounts["/etc/files"]["name"]]["secret"]["secretName"] == "files"
    assert worker["envFrom"] == [{"secretRef": {"name": "keys"}}]
    assert spec["nodeSelector"] == {"zone": "a"}
    assert spec["tolerations"] == [
        {"key": "gpu", "operator": "Equal", "value": "yes", "effect": "NoSchedule"},
        {"key": "spot", "operator": "Exists"},
    ]
    assert (spec["priorityClassName"], spec["imagePullSecrets"]) == ("high", [{"name": "pull"}])
    assert spec["topologySpreadConstraints"][0]["whenUnsatisfiable"] == "DoNotSchedule"
    assert volumes["shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "8Gi"}
    assert env_of(spec)["A"] == "1"
    assert "A" not in env_of(spec, "prepare")
    assert spec["terminationGracePeriodSeconds"] >= 3 + 5
    assert spec["activeDeadlineSeconds"] >= 3660
    assert "topologySpreadConstraints" not in pod_template(render(spread="none"))["spec"]


def test_hosts_are_there_without_root() -> None:
    spec = pod_template(render())["spec"]
    worker = {mount["mountPath"]: mount for mount in spec["containers"][0]["volumeMounts"]}
    assert worker["/etc/hosts"] == {
        "name": "state",
        "mountPath": "/etc/hosts",
        "subPath": "hosts",
        "readOnly": True,
    }
    assert "/etc/hosts" not in {mount["mountPath"] for mount in spec["initContainers"][0]["volumeMounts"]}


# -- where the code is


def test_the_code_travels_in_a_configmap_that_cannot_change() -> None:
    found = render()
    config = only(found, "ConfigMap")
    assert config["immutable"] is True
    assert {key: base64.b64decode(value) for key, value in config["binaryData"].items()} == {
        "torchnet.zip": b"PK agent",
        "code.zip": b"PK code",
    }
    spec = pod_template(found)["spec"]
    assert spec["containers"][0]["workingDir"] == "/work"
    assert "--code" in command_of(spec, "prepare")
    assert "--code" not in command_of(spec, "worker")


def test_code_in_the_image_or_on_a_volume_does_not_travel() -> None:
    there = Code(b"PK agent", None, "src/train.py")
    for code in ("image", "pvc:claim/a/b", "pvc:claim"):
        found = objects(job(code=code), "train", "ml", "t", there)
        assert list(only(found, "ConfigMap")["binaryData"]) == ["torchnet.zip"]
        worker = pod_template(found)["spec"]["containers"][0]
        assert "--code" not in command_of(pod_template(found)["spec"], "prepare")
        assert worker["command"][-1] == "src/train.py"
        script = [mount for mount in worker["volumeMounts"] if mount["name"] == "script"]
        if code == "image":
            assert "workingDir" not in worker
            assert script == []
        else:
            assert worker["workingDir"] == script[0]["mountPath"] == "/code"
            assert script[0].get("subPath") == {"pvc:claim": None, "pvc:claim/a/b": "a/b"}[code]


# -- what the agent is told


@each_form
def test_the_agent_understands_every_flag(form: str) -> None:
    more: dict[str, Any] = {"static_ips": ["10.0.0.1-10.0.0.9/24"]} if form == "pods" else {}
    found = render(
        workload=form, job_args=("--lr", "1"), job_output={"min_share": 0.5}, job_module=True, **more
    )
    for phase, name in (("prepare", "prepare"), ("work", "worker")):
        words = command_of(pod_of(found, 1)["spec"], name)
        assert words[:3] == ["python3", "/torchnet/torchnet.zip", "agent"]
        known = parse([word.replace("$(JOB_COMPLETION_INDEX)", "1") for word in words[3:]])
        assert (known.phase, known.node_rank, known.name, known.nnodes, known.run_id) == (
            phase,
            1,
            "train-1",
            4,
            "train",
        )
        assert (known.module, known.min_share) == (True, 0.5)
        assert known.command == ["train.py", "--lr", "1"]


# -- hostile texts are carried as data

HOSTILE = [
    "a\nb",
    ": {}",
    "\x1b[31m",
    "$(HOME)",
    "$$(HOME)",
    "$$",
    "$",
    "$(",
    "\u202e",
    "a # b",
    "- x",
    "{{.}}",
    "é😀",
    "",
]


def expanded(text: str, variables: dict[str, str]) -> str:
    """As k8s.io/kubernetes/third_party/forked/golang/expansion does it, from its documentation."""
    result, place = "", 0
    while place < len(text):
        if text[place] == "$" and place + 1 < len(text):
            following = text[place + 1]
            if following == "$":
                result, place = result + "$", place + 2
                continue
            end = text.find(")", place) if following == "(" else -1
            if end > 0:
                name = text[place + 2 : end]
                result, place = result + variables.get(name, f"$({name})"), end + 1
                continue
        result, place = result + text[place], place + 1
    return result


@given(st.text("$()A B", max_size=12) | st.text(max_size=20))
def test_kubernetes_leaves_texts_as_they_were_typed(text: str) -> None:
    assert expanded(literal(text), {"A": "expanded", "": "nothing", "A B": "x"}) == text


def test_the_expansion_is_one() -> None:
    assert expanded("x$(A)$$(A)$B", {"A": "1"}) == "x1$(A)$B"


@settings(deadline=None, max_examples=50)
@given(st.sampled_from(HOSTILE) | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_hostile_values_are_carried_as_data(value: str) -> None:
    found = render(annotations={"x.example/y": value}, job_env={"V": value}, job_args=(value, "end"))
    read = yaml.safe_load(text_of(found[-1:]))
    assert read["metadata"]["annotations"]["x.example/y"] == value
    spec = read["spec"]["template"]["spec"]
    assert expanded(env_of(spec)["V"], {"HOME": "x"}) == value
    assert [expanded(word, {"HOME": "x"}) for word in command_of(spec, "worker")[-2:]] == [value, "end"]


# -- the user's template


def test_a_template_is_merged_into_every_worker() -> None:
    patch = {
        "metadata": {"labels": {"a": "b"}},
        "spec": {
            "hostname": None,
            "dnsPolicy": "None",
            "containers": [
                {
                    "name": "worker",
                    "env": [{"name": "NCCL_DEBUG", "value": "INFO"}],
                    "resources": {"limits": {"cpu": "8"}},
                },
                {"name": "sidecar", "image": "s:1"},
            ],
        },
    }
    for form in FORMS:
        for index in (0, 3):
            made = pod_of(render(workload=form, patch=patch), index)
            assert made["metadata"]["labels"]["a"] == "b"
            assert made["spec"]["dnsPolicy"] == "None"
            env = env_of(made["spec"])
            assert (env["NCCL_DEBUG"], env["JOB_COMPLETION_INDEX"]) == ("INFO", str(index))
            assert "sidecar" in [one["name"] for one in made["spec"]["containers"]]


@pytest.mark.parametrize(
    ("patch", "part"),
    [
        ({"metadata": {"labels": {"torchnet/run": "x"}}}, "torchnet/run"),
        ({"metadata": {"labels": None}}, "torchnet/run"),
        ({"metadata": {"annotations": {names.NETWORKS_ANNOTATION: "[]"}}}, "--network"),
        ({"spec": {"restartPolicy": "Always"}}, "restartPolicy"),
        ({"spec": {"containers": [{"name": "worker", "$patch": "delete"}]}}, "worker is gone"),
        ({"spec": {"initContainers": [{"$patch": "replace"}, {"name": "x"}]}}, "prepare is gone"),
        ({"spec": {"containers": [{"name": "worker", "command": ["sleep"]}]}}, "command of worker"),
        ({"spec": {"containers": [{"name": "worker", "args": ["x"]}]}}, "command of worker"),
        ({"spec": None}, "prepare is gone"),
    ],
    ids=str,
)
def test_a_template_cannot_make_a_worker_something_else(patch: dict[str, Any], part: str) -> None:
    with pytest.raises(UsageError, match=re.escape(part)):
        render(patch=patch)
