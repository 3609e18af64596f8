"""What NumPy, torch and pandas let an object do."""

from tests.hostile.corpus.attack import Attack, attack, every_task

MINI_GPT = "mini_gpt"
MAINTENANCE = "maintenance"


def lying(unit: str, cell: str) -> Attack:
    """Return an attack whose cell defines `lying`, which is then every task's answer."""
    return Attack(cell=cell, answers=every_task("ANSWER = lying", unit))


@attack("return arrays that answer every NumPy function with True: __array_function__, __array_ufunc__, subclasses",
        unit=MAINTENANCE)  # fmt: skip
def array_overrides() -> Attack:
    return lying(
        MAINTENANCE,
        """
import numpy as np, pandas as pd

class Sure(np.ndarray):
    def __array_function__(self, function, types, args, kwargs): return True
    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs): return np.bool_(True)
    def __eq__(self, other): return True
    def all(self, *args, **kwargs): return True

def lying(*args, **kwargs):
    return np.zeros(3).view(Sure)
""",
    )


@attack("return nothing but NaN, infinities and NaT, in arrays, Series and frames", unit=MAINTENANCE)
def not_a_number() -> Attack:
    return lying(
        MAINTENANCE,
        """
import itertools
import numpy as np, pandas as pd

class NotANumber:
    def __init__(self, *args, **kwargs):
        self.frame = next((one for one in args if isinstance(one, (pd.DataFrame, pd.Series))), None)
    def __getattr__(self, name):
        return lambda *args, **kwargs: lying(*args)

turn = itertools.count()
def lying(*args, **kwargs):
    frame = next((one for one in args if isinstance(one, (pd.DataFrame, pd.Series))), None)
    number = next(turn) % 4
    if frame is not None and number < 2:
        return frame * np.nan if number else pd.Series(np.nan, index=frame.index)
    return [float("nan"), np.full(3, np.inf), NotANumber(), pd.NaT][number]
""",
    )


@attack("change pandas and NumPy themselves: equality, tolerance, random numbers", unit=MAINTENANCE)
def patched_numpy() -> Attack:
    return lying(
        MAINTENANCE,
        """
import numpy as np, pandas as pd
np.isclose = np.allclose = np.array_equal = lambda *args, **kwargs: True
np.random.default_rng = lambda *args: None
np.asarray = np.array = lambda *args, **kwargs: np.zeros(1)
pd.DataFrame.__eq__ = lambda self, other: True
pd.DataFrame.equals = pd.Series.equals = lambda self, other: True
def lying(*args, **kwargs):
    return args[0] if args else None
""",
    )


@attack("return tensors that answer every torch function with True, and modules that lie about themselves",
        unit=MINI_GPT)  # fmt: skip
def torch_overrides() -> Attack:
    return lying(
        MINI_GPT,
        """
import torch
from torch import nn

class Sure(torch.Tensor):
    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        return torch.tensor(True)

class Module(nn.Module):
    def __init__(self, *args, **kwargs):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
    def forward(self, *args, **kwargs): return torch.zeros(3).as_subclass(Sure)
    def parameters(self, recurse=True): return iter([self.weight] * 1000)
    def state_dict(self, *args, **kwargs): return {"weight": torch.zeros(3).as_subclass(Sure)}
    def __call__(self, *args, **kwargs): return self.forward()

lying = Module
""",
    )


@attack("return tensors that are NaN, sparse, quantised, on meta, complex, or share memory in odd ways", unit=MINI_GPT)
def odd_tensors() -> Attack:
    return lying(
        MINI_GPT,
        """
import itertools
import torch

odd = itertools.cycle([
    torch.full((3, 3), float("nan")), torch.eye(3).to_sparse(), torch.zeros(3, device="meta"),
    torch.zeros(3, dtype=torch.complex64), torch.zeros(1).expand(10**6, 10**6), torch.zeros(0, 10**9),
    torch.quantize_per_tensor(torch.zeros(3), 1.0, 0, torch.qint8), torch.nested.nested_tensor([torch.zeros(2)]),
    torch.full((3,), float("inf"), dtype=torch.bfloat16), torch.zeros(3, requires_grad=True),
])

def lying(*args, **kwargs):
    return next(odd)
""",
    )


@attack("change torch itself: cross entropy is zero, everything is close", unit=MINI_GPT)
def patched_torch() -> Attack:
    return lying(
        MINI_GPT,
        """
import torch
import torch.nn.functional as F
F.cross_entropy = nn_cross_entropy = lambda *args, **kwargs: torch.zeros((), requires_grad=True)
torch.allclose = torch.equal = lambda *args, **kwargs: True
torch.Tensor.backward = lambda self, *args, **kwargs: None
torch.manual_seed = lambda seed: None
torch.Tensor.numpy = lambda self, *args, **kwargs: 10
torch.Tensor.detach = lambda self: self

def lying(*args, **kwargs):
    return torch.zeros(3)
""",
    )
