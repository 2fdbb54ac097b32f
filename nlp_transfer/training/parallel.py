"""Gradients, weights and plain values over the processes of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import DistributedType, broadcast_object_list, gather_object
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from nlp_transfer.adapters.trainable import trainable_state
from nlp_transfer.errors import TrainingError
from nlp_transfer.fingerprints import hash_tensors
from nlp_transfer.training.processes import processes
from nlp_transfer.training.zero import uses_zero

T = TypeVar("T")

BUCKET = 2**24


def is_sharded(accelerator: Accelerator) -> bool:
    """Whether each process holds a part of the network (FSDP2) and not all of it."""
    return bool(accelerator.distributed_type == DistributedType.FSDP)


def means_gradients(accelerator: Accelerator) -> bool:
    """Whether the backward pass takes the mean of the gradients over the processes, as in FSDP and DeepSpeed."""
    return is_sharded(accelerator) or uses_zero()


def shard(accelerator: Accelerator, network: nn.Module) -> None:
    """Spread the weights over the processes, the layers of the encoder one by one. Of accelerate's FSDP settings,
    ``reshard_after_forward`` is read.

    Before the optimizer is made, so that it holds the parts. (accelerate's own way swaps them in an optimizer of whole
    weights, and fails for encoders when layers are wrapped one by one.) Weights and gradients stay in fp32, also where
    matrix products are computed in another type, so that the result is that of one process.
    """
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    for module in (*repeated_layers(network), network):
        fully_shard(
            module,
            mesh=mesh,
            reshard_after_forward=accelerator.state.fsdp_plugin.reshard_after_forward,
            mp_policy=MixedPrecisionPolicy(),
        )


def weights_of(network: nn.Module) -> dict[str, nn.Parameter]:
    """Those that are trained, by name, as the optimizer holds them: after a forward pass a sharded network may show
    whole ones.
    """
    for module in network.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
    return {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}


def repeated_layers(module: nn.Module) -> Iterator[nn.Module]:
    """The members of the outermost lists of modules: in an encoder, its layers."""
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield from child
        else:
            yield from repeated_layers(child)


@torch.no_grad()
def sum_gradients(accelerator: Accelerator, network: nn.Module) -> None:
    """Over the processes, once a step, where the backward pass has not done so.

    DDP does it in the middle of the backward pass, so that a process that repeats a pass for want of memory would send
    some of it twice. Weights that no loss depends on have no gradient in any process.
    """
    if accelerator.num_processes == 1 or means_gradients(accelerator):
        return
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    for bucket in buckets(gradients):
        flat = torch.cat([gradient.flatten() for gradient in bucket])
        dist.all_reduce(flat)
        for gradient, summed in zip(bucket, torch.split(flat, [g.numel() for g in bucket]), strict=True):
            gradient.copy_(summed.view_as(gradient))


def buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Groups of about ``BUCKET`` numbers: few messages, and no second copy of everything."""
    group: list[Tensor] = []
    for tensor in tensors:
        group.append(tensor)
        if sum(one.numel() for one in group) >= BUCKET:
            yield group
            group = []
    if group:
        yield group


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, also where this process holds a part; all processes must call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def own_part(tensor: Tensor, like: Tensor) -> Tensor:
    """What this process holds of ``tensor``, spread as ``like`` is."""
    placed = tensor.to(like.device)
    return distribute_tensor(placed, like.device_mesh, like.placements) if isinstance(like, DTensor) else placed


def gathered(value: T) -> list[T]:
    """The value of every process, in their order; all must call it."""
    return list(gather_object([value])) if processes().num_processes > 1 else [value]


def from_main(value: T) -> T:
    """The value of the main process; all must call it."""
    values: list[Any] = [value]
    if processes().num_processes > 1:
        broadcast_object_list(values)
    return values[0]  # type: ignore[no-any-return]


def by_main(work: Callable[[], T]) -> T:
    """Do it in the main process alone; what that returns, or raises, all processes do. All must call it."""
    result: Any = None
    error: Exception | None = None
    if processes().is_main_process:
        try:
            result = work()
        except Exception as raised:  # noqa: BLE001 - whatever it is, the others must not wait for ever
            error = raised
    result, error = from_main((result, error))
    if error is not None:
        raise error
    return result  # type: ignore[no-any-return]


def tensors_from_main(tensors: Mapping[str, Tensor] | None) -> Iterator[tuple[str, Tensor]]:
    """The tensors of the main process, one by one, so that a process never holds all of them twice."""
    shapes = from_main({name: (tensor.shape, tensor.dtype) for name, tensor in (tensors or {}).items()})
    group = processes()
    for name, (shape, dtype) in shapes.items():
        if group.num_processes == 1:
            yield name, cast(Mapping[str, Tensor], tensors)[name]
            continue
        empty = torch.empty(shape, dtype=dtype, device=group.device)
        sent = tensors[name].to(group.device) if tensors and group.is_main_process else empty
        dist.broadcast(sent, src=0)
        yield name, sent


def in_any_process(flag: bool) -> bool:
    """Whether it is set somewhere; all must call it."""
    group = processes()
    if group.num_processes == 1:
        return flag
    found = torch.tensor(int(flag), device=group.device)
    dist.all_reduce(found, op=dist.ReduceOp.MAX)
    return bool(found.item())


def refuse_different_weights(accelerator: Accelerator, network: nn.Module) -> None:
    """Raises TrainingError where a process has come to hold other weights than the main one."""
    if accelerator.num_processes == 1 or is_sharded(accelerator):
        return
    hashes = gathered(hash_tensors(trainable_state(network)))
    if odd := [process for process, found in enumerate(hashes) if found != hashes[0]]:
        raise TrainingError(
            f"Process {odd[0]} holds other weights than process 0 (sha256 {hashes[odd[0]][:12]} against "
            f"{hashes[0][:12]}). Processes must run the same code on the same data with the same seed."
        )
