import torch

from diffusion.transfers import host_memory, to_device
from tests.pretended import pretended


def test_on_the_cpu_values_stay_where_they_are() -> None:
    values = torch.arange(6.0)
    assert to_device(values, torch.device("cpu")) is values


def test_values_that_are_made_in_host_memory_go_to_the_device_without_waiting_or_another_copy() -> None:
    assert not host_memory((2, 3), torch.float64, torch.device("cpu")).is_pinned()
    with pretended("cuda") as ledger:
        memory = host_memory((2, 3), torch.float64, ledger.device)
        assert memory.shape == (2, 3) and memory.dtype == torch.float64 and memory.device.type == "cpu"
        assert memory.is_pinned()
        values = to_device(memory.fill_(2.5), ledger.device)
        assert values.device == ledger.device and values.value.tolist() == [[2.5] * 3] * 2  # type: ignore[attr-defined]
    assert ledger.waits.total() == 0 and ledger.queued.total() == 1
