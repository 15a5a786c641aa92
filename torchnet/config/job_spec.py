"""The job as one frozen value. Constructing it validates it, without looking at anything outside it.

`torchnet.config.settings` documents every field's path, flag and meaning; `torchnet.config.resolution` collects the
values. Relative paths are relative to the directory in which the launcher is started.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    model_validator,
)

from torchnet.config import fault_syntax, kubernetes, parsing
from torchnet.config.host_line import HostLine
from torchnet.config.k8s_values import parse_host_networks, parse_networks
from torchnet.config.kubernetes import Kubernetes
from torchnet.constants import GRACE_SECONDS, LOCAL_PREFIXES, POD_VARIABLES, TUNE_PREFIX
from torchnet.network import attachment
from torchnet.network.attachment import NetworkAttachment
from torchnet.network.host_networks import HostNetwork, is_host_network
from torchnet.text import listed

YEAR = 366 * 86400.0
LOOPBACK = "loopback"
STDOUT = "-"

Whole = Annotated[int, BeforeValidator(parsing.parse_whole)]
Switch = Annotated[bool, BeforeValidator(parsing.parse_switch)]
Duration = Annotated[float, BeforeValidator(parsing.parse_duration), Field(ge=0, le=YEAR)]
Limit = Annotated[float, BeforeValidator(parsing.parse_duration), Field(gt=0, le=YEAR)]
Rate = Annotated[int, BeforeValidator(parsing.parse_rate), Field(ge=parsing.RATES[0], le=parsing.RATES[1])]
Share = Annotated[float, BeforeValidator(parsing.parse_number), Field(ge=0, le=1)]
# Pydantic's str rejects lone surrogates, in which Python keeps undecodable bytes of a command line. A script's
# arguments must arrive as they were typed, so PlainValidator replaces pydantic's check.
Text = Annotated[str, PlainValidator(parsing.parse_nonempty)]
Texts = Annotated[tuple[str, ...], PlainValidator(parsing.parse_texts)]
Names = Annotated[tuple[str, ...], PlainValidator(parsing.parse_list)]
Variables = Annotated[dict[str, str], PlainValidator(parsing.parse_variables)]
Streams = Annotated[str, PlainValidator(parsing.parse_streams)]
Ranks = Annotated[tuple[int, ...], PlainValidator(parsing.parse_ranks)]
Signals = Annotated[tuple[str, ...], PlainValidator(parsing.parse_signals)]


def _nodes(value: object) -> int:
    """Parse the number of nodes; torchrun's ``MIN:MAX`` is accepted if both are equal."""
    first, colon, last = value.partition(":") if isinstance(value, str) else ("", "", "")
    if not colon:
        return parsing.parse_whole(value)
    try:
        low, high = parsing.parse_whole(first), parsing.parse_whole(last)
    except ValueError:
        raise ValueError("is not a whole number") from None
    if low != high:
        raise ValueError(
            "is a range (elastic job); torchnet runs a fixed number of nodes, since it checks the paths between them "
            f"before the start: use {low} or {high}"
        )
    return low


def _processes(value: object) -> int | str:
    if isinstance(value, str) and value in ("gpu", "cpu", "auto"):
        return value
    count = parsing.parse_whole(value)
    if not 1 <= count <= 1024:
        raise ValueError("is out of range")
    return count


def _faults(texts: tuple[str, ...]) -> tuple[str, ...]:
    for text in texts:
        try:
            fault_syntax.parse(text)
        except ValueError as error:
            raise ValueError(f"contains {parsing.quote(text)}: {error}") from None
    return texts


def split_networks(value: object) -> tuple[str, ...]:
    """Parse a list of networks; commas also separate the parts of one ``host:`` or ``rdma:`` network."""
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, (list, tuple)) or not all(isinstance(item, str) for item in items):
        return parsing.parse_list(value)
    found: list[str] = []
    for item in items:
        for text in re.split(",(?=(?:host|rdma):)", item.strip()):
            found += [text] if is_host_network(text) else parsing.parse_list(text)
    return tuple(found)


NetworkTexts = Annotated[tuple[str, ...], PlainValidator(split_networks)]


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Network(_Group):
    """The backend network, which carries the collectives."""

    networks: NetworkTexts = ()
    """Locally ``()`` for the two networks of the job, ``("loopback",)`` for no network; on Kubernetes the texts of
    `attachments`."""
    rails: Annotated[Whole, Field(ge=1, le=len(LOCAL_PREFIXES))] = 1
    rate: Rate | None = None
    """Bits per second of each rail; None is unlimited."""
    mtu: Annotated[Whole, Field(ge=1280, le=65535)] = 9000
    """Bytes. IPv6 needs 1280 (RFC 8200, section 5)."""
    family: Literal["auto", "ipv4", "ipv6"] = "auto"
    preflight: Literal["auto", "full"] = "auto"
    faults: Annotated[Names, AfterValidator(_faults)] = ()
    """Read by `torchnet.config.fault_syntax.parse`."""

    @cached_property
    def attachments(self) -> tuple[NetworkAttachment, ...]:
        """``networks`` on Kubernetes, one attachment per rail; in a valid job they can be parsed."""
        return parse_networks(self.networks)

    @cached_property
    def host_networks(self) -> tuple[HostNetwork, ...]:
        """The networks in ``networks`` that the hosts have themselves."""
        return tuple(parse_host_networks([text for text in self.networks if is_host_network(text)]))

    @model_validator(mode="after")
    def _check_loopback(self) -> Network:
        shaped = [name for name in ("rails", "rate", "mtu", "faults") if name in self.model_fields_set]
        if self.networks == (LOOPBACK,) and shaped:
            raise ValueError(f"network.networks: loopback does not support {listed(shaped)}")
        return self


class Run(_Group):
    """Restarts and time limits. Times are seconds."""

    max_restarts: Annotated[Whole, Field(ge=0, le=1000)] = 0
    grace: Duration = GRACE_SECONDS
    link_grace: Duration = 5.0
    stall_timeout: Duration = 300.0
    """0 is off."""
    stall_action: Literal["report", "stop"] = "report"
    start_timeout: Limit = 300.0
    timeout: Limit | None = None
    stdin_rank: Annotated[Whole, Field(ge=0, lt=parsing.RANK_LIMIT)] | None = None
    """None: 0 if the job has a single process."""
    signals: Signals = ()
    """Names, without those that always stop a job."""


class Tune(_Group):
    """Tuning of the collectives.

    ``bucket_cap_mb`` (MiB) and ``compress`` apply to scripts that call ``torchnet.tune()``, the others to Gloo and NCCL
    in any script. None: the default of PyTorch or NCCL. Only ``compress`` changes the results.
    """

    bucket_cap_mb: (
        Annotated[float, BeforeValidator(parsing.parse_number), Field(ge=0.1, le=10_000)] | None
    ) = None
    compress: Literal["none", "bf16", "fp16"] = "none"
    gloo_devices: Annotated[Whole, Field(ge=1, le=8)] | None = None
    nccl_socket_nthreads: Annotated[Whole, Field(ge=1, le=16)] | None = None
    nccl_nsocks_perthread: Annotated[Whole, Field(ge=1, le=16)] | None = None

    @model_validator(mode="after")
    def _check_nccl_limit(self) -> Tune:
        threads, sockets = self.nccl_socket_nthreads or 1, self.nccl_nsocks_perthread or 1
        if threads * sockets > 64:
            raise ValueError(
                f"tune.nccl_nsocks_perthread: {threads} threads with {sockets} sockets each exceed NCCL's limit of 64"
            )
        return self

    def variables(self) -> dict[str, str]:
        """Return the variables for the workers, under the names from which a launcher reads the same settings."""
        values = {name: getattr(self, name) for name in sorted(self.model_fields_set)}
        texts = {
            name: f"{v:g}" if isinstance(v, float) else str(v) for name, v in values.items() if v is not None
        }
        return {f"{TUNE_PREFIX}{name.upper()}": text for name, text in texts.items()}


class Output(_Group):
    """Console output and files."""

    log_dir: Text | None = None
    tee: Streams = "0"
    redirects: Streams = "0"
    ranks: Ranks = ()
    """Sorted; () for all."""
    local_ranks: Ranks = ()
    no_prefix: Switch = False
    prefix_template: Text | None = None
    json_path: Text | None = Field(default=None, alias="json")
    """``"-"`` is standard output."""
    min_share: Share | None = None
    measure: Switch = False
    full_receipt: Switch = False
    quiet: Switch = False


class JobSpec(_Group):
    """The settings of a job.

    Raises:
        pydantic.ValidationError: Lists every invalid field.
    """

    on: Literal["local", "hosts", "kubernetes"] = "local"
    script: Text
    args: Texts = ()
    module: Switch = False
    no_python: Switch = False
    nnodes: Annotated[int, BeforeValidator(_nodes), Field(ge=1, le=10_000)] = 2
    nproc_per_node: Annotated[int | Literal["gpu", "cpu", "auto"], PlainValidator(_processes)] | None = None
    """None: the node's share of the GPUs (on Kubernetes its ``kubernetes.gpus``), else 1."""
    standalone: Switch = False
    run_id: Annotated[str, PlainValidator(parsing.parse_label)] | None = None
    """None: generated at launch, so that equal settings give equal values."""
    rdzv_id: Text | None = None
    role: Text = "default"
    virtual_local_rank: Switch = False
    env: Variables = Field(default_factory=dict)
    env_file: Names = ()
    """Read by `torchnet.config.resolution`, which puts their variables into ``env``."""
    network: Network = Network()
    run: Run = Run()
    tune: Tune = Tune()
    output: Output = Output()
    kubernetes: Kubernetes = Kubernetes()
    host_line: HostLine | None = None
    """With ``on="hosts"``: this host's part, from the command line and its environment."""

    @model_validator(mode="before")
    @classmethod
    def _default_nnodes(cls, data: Any) -> Any:
        if isinstance(data, dict) and "nnodes" not in data and data.get("standalone") is True:
            return {**data, "nnodes": 1}
        return data

    @property
    def attachments(self) -> tuple[NetworkAttachment, ...]:
        """The workers' attachments to the backend, one per rail, in order; () on loopback."""
        if self.on == "kubernetes":
            return self.network.attachments
        if self.on == "hosts":
            return ()
        return () if self.network.networks == (LOOPBACK,) else attachment.LOCAL[: self.network.rails]

    @property
    def host_network(self) -> bool:
        """Whether the workers' pods are in their hosts' network (``--network host:…``)."""
        return self.on == "kubernetes" and any(one.kind == "host" for one in self.network.host_networks)

    @model_validator(mode="after")
    def _check_combinations(self) -> JobSpec:
        problems = []
        if self.standalone and self.nnodes != 1:
            problems.append(
                f"standalone: means --nnodes 1, and conflicts with nnodes {self.nnodes}: leave one of the two out"
            )
        if self.output.min_share and self.nnodes == 1:
            problems.append("min_share needs at least 2 nodes: a single node sends nothing over a network")
        if self.on == "kubernetes":
            files = {"output.json": self.output.json_path, "output.log_dir": self.output.log_dir}
            written = tuple(path for path, value in files.items() if value is not None)
            invalid = self._network_problems()
            problems += invalid + kubernetes.find_problems(
                self.kubernetes, () if invalid else self.attachments, self.nnodes, self.run_id, written
            )
            problems += self._process_count_problems() + self._encoding_problems()
            problems += [
                f"env: {name} is reserved: torchnet sets it in each pod; use another name"
                for name in POD_VARIABLES
                if name in self.env
            ]
        elif self.on == "hosts":
            problems += self._hosts_problems()
        elif own := [text for text in self.network.networks if is_host_network(text)]:
            problems.append(
                f"network.networks: {own[0]} is a network of the host, but local nodes have networks of their own; "
                "torchnet receipt --network observes a command on the host's network"
            )
        elif self.network.networks not in ((), (LOOPBACK,)):
            problems.append("network.networks: this network does not exist on this machine")
        problems += self._fault_problems()
        if self.module and self.no_python:
            problems.append("no_python: conflicts with module, which needs Python")
        problems += self._rank_problems()
        if problems:
            # One line per problem, "path: what" if it is about one field; torchnet.config.validation_errors parses it.
            raise ValueError("\n".join(problems))
        return self

    def _hosts_problems(self) -> list[str]:
        """Find networks that hosts do not have."""
        foreign = [text for text in self.network.networks if not is_host_network(text)]
        if foreign:
            return [
                f"network.networks: {foreign[0]} is not a network of the hosts: host:INTERFACE, host:NETWORK/LENGTH or "
                "rdma:DEVICE"
            ]
        try:
            parse_host_networks(self.network.networks)
        except ValueError as error:
            return [f"network.networks: {line}" for line in str(error).splitlines()]
        return []

    def _network_problems(self) -> list[str]:
        if not self.network.networks:
            return [
                "network.networks: is required: the NetworkAttachmentDefinition of the backend, [NAMESPACE/]NAME"
            ]
        try:
            attachments = self.network.attachments
        except ValueError as error:
            return [f"network.networks: {line}" for line in str(error).splitlines()]
        if not attachments and not self.host_network:
            return [
                "network.networks: rdma: needs a network for the rendezvous: a NetworkAttachmentDefinition or host:"
            ]
        found = []
        if self.host_network and self.kubernetes.static_ips:
            found.append("kubernetes.static_ips: the hosts' network has its own addresses")
        if self.host_network and self.kubernetes.multi_network_policy:
            found.append("kubernetes.multi_network_policy: no policy applies to pods in the hosts' network")
        return found

    def _process_count_problems(self) -> list[str]:
        """Check that ``gpu`` and ``cpu`` as the number of processes can be resolved from the pods' resources."""
        if self.nproc_per_node == "gpu" and not self.kubernetes.gpus:
            return ["nproc_per_node: is gpu, but the workers have no GPUs; use --gpus"]
        if self.nproc_per_node == "cpu" and not self.kubernetes.cpus:
            return ["nproc_per_node: is cpu, but the number of CPUs per worker is not set; use --cpus"]
        return []

    def _rank_problems(self) -> list[str]:
        """Find ranks that the job does not have; skipped while the number of processes is unknown (local GPUs)."""
        if self.on == "kubernetes" and not self._process_count_problems():
            count = kubernetes.processes(self.kubernetes, self.nproc_per_node)
        elif isinstance(self.nproc_per_node, int):
            count = self.nproc_per_node
        else:
            return []
        last, problems = self.nnodes * count - 1, []
        if beyond := parsing.beyond(self.output.ranks, last + 1):
            problems.append(f"output.ranks: contains {beyond}; the ranks of the job are 0 to {last}")
        if self.run.stdin_rank is not None and self.run.stdin_rank > last:
            problems.append(f"run.stdin_rank: is {self.run.stdin_rank}; the ranks of the job are 0 to {last}")
        return problems

    def _encoding_problems(self) -> list[str]:
        """Find texts that are not UTF-8, which the API server rejects."""
        texts = [("script", self.script), *(("args", text) for text in self.args)]
        texts += [("env", text) for text in self.env.values()]
        problems = []
        for path, text in texts:
            try:
                text.encode()
            except UnicodeEncodeError:
                line = f"{path}: {parsing.quote(text)} is not UTF-8, which Kubernetes requires"
                problems += [line] if line not in problems else []
        return problems

    def _fault_problems(self) -> list[str]:
        """Find faults on nodes or rails that the job does not have, or with sizes above the MTU."""
        problems = []
        for text in self.network.faults:
            fault = fault_syntax.parse(text)
            nodes = [fault.node, *([int(fault.value[5:])] if fault.kind == "wrong-route" else [])]
            if max(nodes) >= self.nnodes:
                problems.append(
                    f"{text}: no node-{max(nodes)}; the nodes of the job are node-0 to node-{self.nnodes - 1}"
                )
            if int(fault.interface[3:]) > self.network.rails:
                problems.append(f"{text}: no {fault.interface} with --rails {self.network.rails}")
            if fault.kind in ("mtu", "narrow") and int(fault.value) > self.network.mtu:
                problems.append(f"{text}: exceeds the MTU of the network, {self.network.mtu}")
        return problems
