"""The norm of all gradients and a step of AdamW on a CPU, each in one pass over memory."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import increment_version
from torch.profiler import record_function

from accord.models.kernels.build import MARK, library, threads_for

__all__ = ["Parameters"]


class _Parameter(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("weight", "gradient", "mean", "square")),
        ("size", ctypes.c_int64),
        *((name, ctypes.c_float) for name in ("rate", "root")),
    ]


class _Settings(ctypes.Structure):
    _fields_ = [(name, ctypes.c_float) for name in ("scale", "shrink", "beta1", "beta2", "eps")]


@dataclass(frozen=True)
class Parameters:
    """Parameters with gradients. Where `fit` is false nothing here may be called.

    Attributes:
        weights: what is moved.
        gradients: of each.
    """

    weights: Sequence[Tensor]
    gradients: Sequence[Tensor]

    @property
    def fit(self) -> bool:
        """Whether there are kernels for them: float32 on a CPU, without gaps."""
        return all(map(_fits, (*self.weights, *self.gradients))) and library() is not None  # asked last: it compiles

    @property
    def _threads(self) -> ctypes.c_int:
        return ctypes.c_int(threads_for(sum(x.numel() for x in self.weights)))

    def norm(self) -> float:
        """L2 norm of all gradients together, summed in float64; the same for any number of threads."""
        table = (_Parameter * len(self.weights))()
        for row, gradient in zip(table, self.gradients, strict=True):
            row.gradient, row.size = gradient.data_ptr(), gradient.numel()
        kernel = library().squares_f32  # type: ignore[union-attr]
        kernel.restype = ctypes.c_double
        with record_function(MARK + "squares"):
            return math.sqrt(kernel(table, ctypes.c_int64(len(table)), self._threads))

    def step(
        self,
        means: Sequence[Tensor],
        squares: Sequence[Tensor],
        steps: Sequence[int],
        *,
        rate: float,
        betas: tuple[float, float],
        eps: float,
        decay: float,
        scale: float = 1.0,
    ) -> None:
        """Move all weights, in place.

            m = beta1 m + (1 - beta1) g,  v = beta2 v + (1 - beta2) g^2,  g = scale * gradient
            w = (1 - rate decay) w - rate / (1 - beta1^t) m / (sqrt(v / (1 - beta2^t)) + eps)

        Args:
            means: m of each, moved too; laid out as the weights.
            squares: v of each, moved too; laid out as the weights.
            steps: t of each, this step counted.
            rate: learning rate.
            betas: of both moments.
            eps: keeps the quotient finite.
            decay: of weights.
            scale: of gradients, where they are clipped; they stay as they are.
        """
        for weight, *moments in zip(self.weights, means, squares, strict=True):
            assert all(_fits(x) and x.shape == weight.shape for x in moments), "moments are not laid out as the weights"
        table = (_Parameter * len(self.weights))()
        columns = self.weights, self.gradients, means, squares, steps
        for row, weight, gradient, mean, square, t in zip(table, *columns, strict=True):
            row.weight, row.gradient = weight.data_ptr(), gradient.data_ptr()
            row.mean, row.square, row.size = mean.data_ptr(), square.data_ptr(), weight.numel()
            row.rate, row.root = rate / (1 - betas[0] ** t), math.sqrt(1 - betas[1] ** t)
        settings = _Settings(scale, 1 - rate * decay, *betas, eps)
        with record_function(MARK + "adamw"):
            library().adamw_f32(  # type: ignore[union-attr]
                table, ctypes.c_int64(len(table)), ctypes.byref(settings), self._threads
            )
        increment_version((*self.weights, *means, *squares))  # a graph kept from before is an error, not wrong


def _fits(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype == torch.float32 and x.layout == torch.strided and x.is_contiguous()
