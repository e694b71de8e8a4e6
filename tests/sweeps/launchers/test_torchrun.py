"""The place in a group that torchrun, srun or a hand has given: read from nothing but variables."""

import socket

import pytest

from sweeps.core.errors import ConfigError
from sweeps.core.messages import Place
from sweeps.launchers.torchrun import devices_overrides, given_place, joining_environment

TORCHRUN = {
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "4",
    "GROUP_WORLD_SIZE": "2",
    "MASTER_ADDR": "10.0.0.1",
    "MASTER_PORT": "4711",
}
BATCH_SCRIPT = {  # as SLURM 22.05 sets them
    "SLURM_JOB_ID": "77",
    "SLURM_JOB_NODELIST": "n1",
    "SLURM_LOCALID": "0",
    "SLURM_NNODES": "1",
    "SLURM_NODEID": "0",
    "SLURM_NODELIST": "n1",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "0",
    "SLURM_TASKS_PER_NODE": "2",
}
SRUN = BATCH_SCRIPT | {
    "SLURM_STEP_ID": "3",
    "SLURM_STEP_NODELIST": "n[1-2]",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
}
PAIR = Place(rank=1, world_size=4, local_rank=1, num_nodes=2, address="127.0.0.1", port=4711, is_given=True)


def place_of(variables: dict[str, str], **more: str) -> Place:
    place = given_place(variables | more)
    assert place is not None
    return place


def test_a_process_that_nobody_has_placed_is_alone() -> None:
    assert given_place({}) is None


def test_torchrun_says_rank_size_host_and_meeting_place() -> None:
    assert given_place(TORCHRUN) == Place(
        rank=5, world_size=8, local_rank=1, num_nodes=2, address="10.0.0.1", port=4711, is_given=True
    )


def test_without_local_variables_every_process_is_a_host() -> None:
    variables = {name: TORCHRUN[name] for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")}
    place = place_of(variables)
    assert (place.num_nodes, place.local_rank) == (8, 0)


def test_one_process_of_torchrun_is_alone() -> None:
    one = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1", "GROUP_WORLD_SIZE": "1"}
    assert given_place(TORCHRUN | one) is None


def test_srun_says_rank_size_and_host() -> None:
    place = place_of(SRUN)
    assert (place.rank, place.world_size, place.local_rank, place.num_nodes) == (3, 4, 1, 2)
    assert (place.address, place.is_given) == ("n1", True)


def test_tasks_of_one_host_meet_there_whatever_its_name_resolves_to() -> None:
    one = {"SLURM_STEP_NUM_NODES": "1", "SLURM_STEP_NODELIST": "n1", "SLURM_STEP_TASKS_PER_NODE": "4"}
    place = place_of(SRUN | one, SLURM_LOCALID="3")
    assert (place.address, place.num_nodes) == ("127.0.0.1", 1)


def test_one_task_of_srun_is_alone() -> None:
    assert given_place(SRUN | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}) is None


def test_a_batch_script_is_no_task_of_its_job() -> None:
    assert given_place(BATCH_SCRIPT) is None


def test_torchrun_within_srun_has_the_say() -> None:
    assert place_of(SRUN | TORCHRUN).rank == 5


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("login1", "login1"),
        ("n1,n2", "n1"),
        ("gpu[007-009]", "gpu007"),
        ("gpu[007-009,12],login1", "gpu007"),
        ("gpu[12,007-009]", "gpu12"),
        ("gpu-a[3]-ib,x", "gpu-a3-ib"),
        ("rack[1-2]node[3,5],other", "rack1node3"),
        ("a1.example.org,b[1-3]", "a1.example.org"),
    ],
)
def test_tasks_meet_at_the_first_host_that_slurm_lists(nodes: str, first: str) -> None:
    assert place_of(SRUN, SLURM_STEP_NODELIST=nodes).address == first


def test_all_tasks_of_a_step_compute_the_same_port_and_other_steps_another() -> None:
    ports = {place_of(SRUN, SLURM_PROCID=str(rank), SLURM_LOCALID=str(rank % 2)).port for rank in range(4)}
    others = {place_of(SRUN, SLURM_JOB_ID="78").port, place_of(SRUN, SLURM_STEP_ID="4").port}
    assert len(ports) == 1
    assert len(ports | others) == 3
    assert all(20_000 <= port < 30_000 for port in ports | others)


def test_a_meeting_place_that_the_user_has_set_is_that_of_srun() -> None:
    place = place_of(SRUN, MASTER_ADDR="10.1.1.1", MASTER_PORT="29500")
    assert (place.address, place.port) == ("10.1.1.1", 29500)


@pytest.mark.parametrize("rank", range(3))
def test_hosts_with_unequally_many_tasks_are_refused_by_each_task(rank: int) -> None:
    uneven = {"SLURM_STEP_NUM_TASKS": "3", "SLURM_STEP_TASKS_PER_NODE": "2,1"}
    own = {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank % 2)}
    with pytest.raises(ConfigError, match=r"equally many processes, in order.* hosts have 2, 1: .*--ntasks-per-node"):
        given_place(SRUN | uneven | own)


@pytest.mark.parametrize(("rank", "local_rank", "local_size"), [(0, 0, 2), (1, 1, 2), (2, 0, 1)])
def test_hosts_with_unequally_many_ranks_are_refused_by_each_rank(rank: int, local_rank: int, local_size: int) -> None:
    variables = {"RANK": rank, "WORLD_SIZE": 3, "LOCAL_RANK": local_rank, "LOCAL_WORLD_SIZE": local_size}
    with pytest.raises(ConfigError, match=r"equally many processes.*--nproc-per-node"):
        given_place(TORCHRUN | {name: str(value) for name, value in variables.items()})


def test_tasks_that_go_round_the_hosts_are_refused() -> None:
    with pytest.raises(ConfigError, match="--distribution=block"):
        given_place(SRUN | {"SLURM_PROCID": "1", "SLURM_LOCALID": "0"})


@pytest.mark.parametrize(("name", "text"), [("WORLD_SIZE", "two"), ("MASTER_PORT", ""), ("RANK", "-1")])
def test_a_variable_that_is_no_number_is_named(name: str, text: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} must be a whole number, but is '{text}'"):
        given_place(TORCHRUN | {name: text})


def test_a_rank_beyond_the_last_is_refused() -> None:
    with pytest.raises(ConfigError, match="this is rank 9 of 8"):
        given_place(TORCHRUN | {"RANK": "9"})


def test_the_group_says_how_many_devices_and_hosts_are_trained_on() -> None:
    assert devices_overrides(PAIR, ["seed=1"]) == ["trainer.devices=2", "trainer.num_nodes=2"]


@pytest.mark.parametrize("override", ["trainer.devices=2", "trainer.num_nodes=2", "+trainer.num_nodes=2"])
def test_overrides_that_say_the_same_are_kept(override: str) -> None:
    assert "trainer.devices=2" in devices_overrides(PAIR, [override])


@pytest.mark.parametrize("override", ["trainer.devices=4", "trainer.num_nodes=1", "++trainer.devices=1"])
def test_overrides_that_contradict_the_group_are_refused(override: str) -> None:
    with pytest.raises(ConfigError, match=r"started as one of 4 on 2 hosts: leave trainer\.\w+ out, or start as many"):
        devices_overrides(PAIR, [override])


def test_ranks_talk_over_the_interface_that_leads_to_their_meeting_place() -> None:
    place = Place(rank=0, world_size=2, address="127.0.0.1", port=4711, is_given=True)
    assert dict(joining_environment(place, {})) == {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "4711",
        "GLOO_SOCKET_IFNAME": "lo",
    }


def test_ranks_of_several_hosts_do_not_talk_over_the_loopback_interface() -> None:
    found = dict(joining_environment(PAIR, {})).get("GLOO_SOCKET_IFNAME")
    assert found is None or found in {name for _, name in socket.if_nameindex()} - {"lo"}


def test_an_address_that_leads_nowhere_leaves_the_interface_to_gloo() -> None:
    place = Place(rank=0, world_size=2, address="no-such-host.invalid", port=4711, is_given=True)
    assert "GLOO_SOCKET_IFNAME" not in dict(joining_environment(place, {}))


@pytest.mark.parametrize("name", ["MASTER_ADDR", "MASTER_PORT", "GLOO_SOCKET_IFNAME"])
def test_variables_that_the_user_has_set_are_respected(name: str) -> None:
    assert name not in dict(joining_environment(PAIR, {name: "mine"}))
