"""Synchronised batch normalisation of two and three ranks is the plain one of one process with all samples."""

import multiprocessing
from pathlib import Path

import pytest
import torch
from torch import nn

from sweeps.worker.sync_batchnorm import SyncBatchNorm

SIZES = {2: [(4, 4), (7, 2), (8, 0)], 3: [(1, 1, 6), (3, 4, 1)]}


def layers() -> nn.Sequential:
    torch.manual_seed(0)
    norms = [nn.BatchNorm2d(6, momentum=None), nn.BatchNorm2d(6, affine=False), nn.BatchNorm2d(6, eps=1e-2)]
    norms += [nn.BatchNorm2d(6, track_running_stats=False)]
    return nn.Sequential(nn.Conv2d(3, 6, 3), *norms, nn.Flatten(), nn.BatchNorm1d(6 * 2 * 2)).train()


def images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(8 * 2 + 1, 3, 4, 4, generator=generator) * 3 + 100  # a mean beside which the variance is small


def step(net: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Pass twice forward and once back through a sum of squares, which is the same however samples are dealt."""
    net(x)
    x = x.clone().requires_grad_()
    output = net(x)
    (output * torch.linspace(-1, 1, output.shape[1])).relu().square().sum().backward()
    gradients = {f"gradient of {name}": parameter.grad for name, parameter in net.named_parameters()}
    net.eval()
    return {
        "output": output.detach(),
        "input": x.grad,
        "evaluated": net[:4](x).detach(),
        **net.state_dict(),
        **gradients,
    }


def rank_main(rank: int, world_size: int, init_file: str, pipe) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{init_file}", rank=rank, world_size=world_size)
    for sizes in SIZES[world_size]:
        begin = sum(sizes[:rank])
        net = SyncBatchNorm().apply(layers())
        seen = step(net, images()[begin : begin + sizes[rank]])
        pipe.send({name: value.tolist() for name, value in seen.items()})


@pytest.fixture(scope="module", params=[2, 3])
def seen(request, tmp_path_factory: pytest.TempPathFactory):
    """What each rank saw, for each way of dealing the samples."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sweeps.worker.sync_batchnorm"])
    init_file = str(tmp_path_factory.mktemp("ranks") / "init")
    pipes = [context.Pipe() for _ in range(request.param)]
    ranks = [
        context.Process(target=rank_main, args=(rank, request.param, init_file, theirs), daemon=True)
        for rank, (_, theirs) in enumerate(pipes)
    ]
    for process, (_, theirs) in zip(ranks, pipes, strict=True):
        process.start()
        theirs.close()  # so that the end of a rank is seen here
    cases = {}
    for sizes in SIZES[request.param]:
        assert all(ours.poll(60) for ours, _ in pipes), "a rank does not answer"
        cases[sizes] = [{name: torch.tensor(value) for name, value in ours.recv().items()} for ours, _ in pipes]
    for process in ranks:
        process.join(timeout=30)
    return cases


@pytest.mark.ddp
@pytest.mark.slow
def test_ranks_see_what_one_process_sees(seen):
    for sizes, ranks in seen.items():
        expected = step(layers(), images()[: sum(sizes)])
        for name, value in expected.items():
            if name in ("output", "input", "evaluated"):
                together = torch.cat([rank[name] for rank, size in zip(ranks, sizes, strict=True) if size])
            elif name.startswith("gradient of"):
                together = sum(rank[name] for rank in ranks)
            else:
                together = ranks[0][name]
                assert all(torch.equal(rank[name], together) for rank in ranks)
            scale = max(1.0, value.abs().max().item())
            torch.testing.assert_close(together, value, atol=1e-4 * scale, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


def test_changed_layers_keep_their_keys_and_come_back():
    net = layers()
    before, classes = net.state_dict(keep_vars=True), [type(layer) for layer in net]
    changed = SyncBatchNorm().apply(net)
    assert sum(type(layer) is not plain for layer, plain in zip(changed, classes, strict=True)) == 5
    assert list(changed.state_dict()) == list(before)
    reverted = SyncBatchNorm().revert(changed)
    assert [type(layer) for layer in reverted] == classes
    after = reverted.state_dict(keep_vars=True)
    assert all(after[key] is value for key, value in before.items())
    assert vars(reverted[1]).keys() == vars(layers()[1]).keys()


@pytest.fixture(params=[False, True], ids=["no group", "a group of one"])
def group_of_one(request, tmp_path: Path):
    if request.param:
        torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/init", rank=0, world_size=1)
    yield
    if request.param:
        torch.distributed.destroy_process_group()


def test_without_other_ranks_it_is_the_plain_layer(group_of_one):
    plain, changed = step(layers(), images()), step(SyncBatchNorm().apply(layers()), images())
    assert all(torch.equal(changed[name], value) for name, value in plain.items())


def test_changed_layers_can_be_saved_whole(tmp_path: Path):
    net = SyncBatchNorm().apply(layers())
    torch.save(net, tmp_path / "net.pt")
    loaded = torch.load(tmp_path / "net.pt", weights_only=False)
    assert [type(layer) for layer in SyncBatchNorm().revert(loaded)] == [type(layer) for layer in layers()]
