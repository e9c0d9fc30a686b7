import torch

from diffusion.transfers import to_device


def test_on_the_cpu_values_stay_where_they_are() -> None:
    values = torch.arange(6.0)
    assert to_device(values, torch.device("cpu")) is values
