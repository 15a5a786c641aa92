"""What srun's variables say about a job step."""

from __future__ import annotations

import pytest

from torchnet.errors import UsageError
from torchnet.hosts.slurm import check_tasks, expand, node_id, step_of, tasks_of

STEP = {
    "SLURM_JOB_ID": "77",
    "SLURM_STEP_ID": "3",
    "SLURM_STEP_NUM_NODES": "3",
    "SLURM_STEP_NODELIST": "gpu[08-09],login",
    "SLURM_STEP_TASKS_PER_NODE": "1(x2),4",
    "SLURM_NODEID": "1",
}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", ()),
        ("gpu1", ("gpu1",)),
        ("gpu1,gpu2", ("gpu1", "gpu2")),
        ("gpu[1-3,7]", ("gpu1", "gpu2", "gpu3", "gpu7")),
        ("gpu[008-010].site", ("gpu008.site", "gpu009.site", "gpu010.site")),
        ("a[1-2]b[3-4],c", ("a1b3", "a1b4", "a2b3", "a2b4", "c")),
        ("gpu[1-99999999]", ()),
    ],
)
def test_a_list_of_hosts(text: str, names: tuple[str, ...]) -> None:
    assert expand(text) == names


@pytest.mark.parametrize(
    ("text", "counts"), [("1(x3)", [1, 1, 1]), ("2,8(x2)", [2, 8, 8]), ("", [1, 1, 1]), ("?", [1, 1, 1])]
)
def test_tasks_on_each_host(text: str, counts: list[int]) -> None:
    assert [tasks_of(text, number) for number in range(3)] == counts


def test_a_step() -> None:
    step = step_of(STEP)
    assert step is not None
    assert (step.nodes, step.node_id, step.names, step.local_tasks) == (3, 1, ("gpu08", "gpu09", "login"), 1)
    assert step.shown == "Slurm step 77.3"
    other = step_of({**STEP, "SLURM_NODEID": "2"})
    assert other is not None
    assert (other.port, other.local_tasks) == (step.port, 4)
    check_tasks(step, "launch")
    with pytest.raises(UsageError, match="srun starts 4 tasks") as caught:
        check_tasks(other, "launch")
    assert "--nproc-per-node 4" in caught.value.fix
    with pytest.raises(UsageError) as caught:
        check_tasks(other, "verify")
    assert caught.value.fix == "srun --ntasks-per-node 1 torchnet verify …"


def test_a_list_that_does_not_fit_the_step_names_nobody() -> None:
    step = step_of({**STEP, "SLURM_STEP_NODELIST": "gpu08"})
    assert step is not None
    assert step.names == ()


def test_a_batch_script_is_no_step() -> None:
    batch = {name: text for name, text in STEP.items() if "STEP" not in name}
    assert (step_of(batch), node_id(batch)) == (None, 1)
    assert step_of({}) is None
    assert node_id({"SLURM_NODEID": "x"}) is None
