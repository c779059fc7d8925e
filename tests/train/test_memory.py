"""The formula of memory: against what autograd keeps, and against the peak of real processes."""

import contextlib

import pytest
import torch

from accord.models.score import prepare, response_states
from accord.train import memory
from accord.trees import Branch, PromptTree, pack
from fakes import FAMILIES

SHORT_TREES = [
    PromptTree(tuple(range(3, 33)), (Branch.response(range(3, 14)),) * 2),
    PromptTree(tuple(range(3, 30)), (Branch.response(range(3, 14)),) * 2),
]
LONG_TREES = [PromptTree(tuple(3 + i % 200 for i in range(150)), (Branch.response(range(3, 18)),) * 2)] * 2


def kept_bytes(model, trees, half):
    """Bytes of the distinct tensors that autograd keeps of a forward pass, weights and their casts left out."""
    prepare(model)
    batch = pack(trees)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    shapes = {s for p in model.parameters() if p.dim() == 2 for s in (tuple(p.shape), tuple(p.shape[::-1]))}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        is_cast = tensor.dtype == torch.bfloat16 and tuple(tensor.shape) in shapes
        if storage.data_ptr() not in weights and not is_cast:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # the tensor lives, so its address is not used again
        return tensor

    cast = torch.autocast("cpu", torch.bfloat16) if half else contextlib.nullcontext()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), cast:
        response_states(model, batch)
    return sum(size for size, _ in kept.values())


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("trees", [SHORT_TREES, LONG_TREES], ids=["short", "long"])
@pytest.mark.parametrize("family", FAMILIES)
def test_activations_are_what_autograd_keeps(family, trees, half):
    model = FAMILIES[family](hidden=48)
    shape = memory.shape_of(model)
    expected = kept_bytes(model, trees, half)
    found = memory.activation_bytes(shape, memory.largest([trees]), half)
    assert found == pytest.approx(expected, rel=0.05 if family == "llama" else 0.3)
