import pytest
import torch


@pytest.fixture(autouse=True)
def _seeded():
    """Random inputs of the tests that draw some are the same in every run."""
    torch.manual_seed(0)
