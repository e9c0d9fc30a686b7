"""Sharding in one process, where it is the identity; `tests/test_many_processes.py` shards over two."""

from __future__ import annotations

import pytest
import torch

from diffusion import distributed
from diffusion.errors import InputError
from diffusion.training import sharding


def test_one_process_does_not_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert not sharding.requested()


def test_several_processes_shard_by_the_second_version_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "count", lambda: 2)
    for name in ("ACCELERATE_USE_FSDP", "FSDP_VERSION"):
        monkeypatch.delenv(name, raising=False)
    assert not sharding.requested()
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(InputError, match="fsdp_version: must be 2 in the configuration of accelerate, got 1"):
        sharding.requested()
    monkeypatch.setenv("FSDP_VERSION", "2")
    assert sharding.requested()


def test_a_value_takes_the_memory_layout_of_its_parameter_and_keeps_its_type() -> None:
    value = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    parameter = torch.nn.Parameter(torch.zeros(2, 3, 4, 5).to(memory_format=torch.channels_last))
    found = sharding.shard_like(value, parameter)
    assert torch.equal(found, value) and found.dtype == torch.float64 and found.stride() == parameter.stride()
    assert not found.requires_grad


def test_a_value_of_another_shape_is_the_same_tensor() -> None:
    value = torch.tensor(3.0)
    assert sharding.shard_like(value, torch.zeros(2, 3)) is value


def test_full_tensors_of_a_whole_network_are_its_own() -> None:
    tensors = {"a": torch.zeros(2), "b": torch.ones(3)}
    assert all(found is tensors[name] for name, found in sharding.full_tensors(tensors))
    assert [name for name, _ in sharding.full_tensors(tensors)] == ["a", "b"]
    assert not sharding.is_sharded(tensors["a"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gpus_exchange_weights_in_the_precision_of_the_network_and_gradients_in_float32(dtype: torch.dtype) -> None:
    policy = sharding.policy_for(dtype, torch.device("cuda"))
    assert (policy.param_dtype, policy.reduce_dtype, policy.output_dtype) == (dtype, torch.float32, None)
    assert not policy.cast_forward_inputs, "log-SNR keeps its digits"


@pytest.mark.parametrize(("dtype", "kind"), [(torch.float32, "cuda"), (torch.bfloat16, "cpu"), (torch.float32, "cpu")])
def test_weights_are_exchanged_as_they_are_in_float32_and_on_cpus(dtype: torch.dtype, kind: str) -> None:
    policy = sharding.policy_for(dtype, torch.device(kind))
    assert (policy.param_dtype, policy.reduce_dtype) == (None, None)
