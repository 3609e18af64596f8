"""One data-only codec: what may cross between a check and an answer, and nothing else.

msgpack with extension types, never pickle. Values cross by exact type: a subclass could lie about itself, so it stays
behind as an object. Decoding is strict and bounded, because in grading the bytes come from code that nobody trusts.
"""

import datetime
import math
import sys
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from decimal import Decimal
from enum import Enum
from typing import Any

import msgpack

_SHARED_HASHES = 100  # so many members of a set may have the same hash; honest ones share it with next to none


class NotDataError(ValueError):
    """A value that cannot cross: an object, or data out of bounds. The message says which, in plain words."""


class RefusedError(ValueError):
    """Bytes that the decoder refuses: malformed, too large, nested too deeply, or not finite."""


@dataclass(frozen=True)
class Bounds:
    """What one message may hold."""

    size: int = 64 * 2**20
    items: int = 2_000_000
    nesting: int = 32
    digits: int = 1_000
    exponent: int = 10_000
    finite: bool = True


@dataclass(frozen=True)
class Record:
    """How a pydantic model, dataclass, named tuple or enum member arrives: its type's name and its fields."""

    kind: str
    type_name: str
    fields: dict[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.fields[name]

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}={value!r}" for name, value in self.fields.items())
        return f"{self.type_name}({inside})"


def as_tuple(value: Any) -> Any:
    """Return what was a named tuple as a plain one, and anything else as it is."""
    return tuple(value.fields.values()) if type(value) is Record and value.kind == "namedtuple" else value


Exporter = Callable[[Any], tuple[str, int] | None]
"""Gives an object that stays behind a name to cross under: ("object", id) or ("lent", id); None refuses it."""
Importer = Callable[[str, int], Any]
"""The reverse: what ("object", id) or ("lent", id) means on the receiving side."""


def encode(value: Any, export: Exporter | None = None) -> bytes:
    """Turn data into bytes. Raises NotDataError if something in it is not data and `export` does not name it."""
    return _Encoder(export).pack(value)


def decode(frame: bytes, bounds: Bounds | None = None, import_: Importer | None = None) -> Any:
    """Turn bytes back into data. Raises RefusedError on anything malformed or out of bounds."""
    bounds = bounds or Bounds()
    if len(frame) > bounds.size:
        raise RefusedError(f"a message of {len(frame):,} bytes; {bounds.size:,} are allowed")
    with _refusing():
        value = _Decoder(bounds, import_).unpack(frame)
    require_bounds(value, bounds)
    return value


@contextmanager
def _refusing() -> Iterator[None]:
    """Refuse whatever makes the libraries stumble that a value is made with, or looked at."""
    try:
        yield
    except RefusedError:
        raise
    except Exception as error:
        raise RefusedError(f"malformed data ({type(error).__name__})") from error


# The extension types. Codes are part of the protocol; a dump is made of msgpack types or of other extension types.


@dataclass(frozen=True)
class _Kind:
    code: int
    dump: Callable[[Any], Any]
    load: Callable[[Any, Bounds], Any]


def _spread(members: Iterable[Hashable]) -> list[Any]:
    """Return the members of a set, or the keys of a dict. Raises RefusedError if their hashes would make it a list.

    The hash of a number is no secret: whoever chooses numbers of equal hash makes a set of n of them take n² steps.
    """
    listed = list(members)
    if len(listed) > _SHARED_HASHES and max(Counter(map(hash, listed)).values()) > _SHARED_HASHES:
        raise RefusedError(f"more than {_SHARED_HASHES} members with the same hash")
    return listed


def _mapping(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    _spread(key for key, _ in pairs)
    return dict(pairs)


def _load_integer(text: Any, bounds: Bounds) -> int:
    if len(text) > bounds.digits:
        raise RefusedError(f"a whole number of more than {bounds.digits} digits")
    return int(text)


def _load_decimal(text: Any, bounds: Bounds) -> Decimal:
    if len(text) > bounds.digits:
        raise RefusedError(f"a decimal of more than {bounds.digits} digits")
    value = Decimal(text)
    if value.is_finite() and abs(value.adjusted()) > bounds.exponent:
        raise RefusedError(f"a decimal with an exponent beyond {bounds.exponent}")
    return value


def _dump_array(array: Any) -> list[Any]:
    if array.dtype.kind not in "biufcUSmM":
        raise NotDataError(f"a NumPy array of dtype {array.dtype}")
    # A C-ordered copy also cuts the ties of views, so that only what is visible crosses.
    return [array.dtype.str, list(array.shape), array.tobytes()]


def _load_array(dump: Any, bounds: Bounds) -> Any:
    import numpy as np

    dtype, shape, data = np.dtype(dump[0]), tuple(dump[1]), dump[2]
    if dtype.kind not in "biufcUSmM" or len(shape) > bounds.nesting:
        raise RefusedError(f"a NumPy array of dtype {dtype} and {len(shape)} dimensions")
    array = np.frombuffer(data, dtype=dtype)
    if dtype.kind == "U" and not _are_characters(array.view(np.dtype("u4").newbyteorder(dtype.byteorder))):
        raise RefusedError("text that is not valid Unicode")
    return array.reshape(shape).copy()


def _are_characters(codes: Any) -> bool:
    """Whether numbers are code points of Unicode; NumPy takes any, and to make a text of them then fails."""
    return bool(((codes < 0xD800) | ((codes > 0xDFFF) & (codes <= sys.maxunicode))).all())


def _load_scalar(dump: Any, bounds: Bounds) -> Any:
    return _load_array(dump, bounds)[()]


def _dump_tensor(tensor: Any) -> list[Any]:
    import torch

    plain = tensor.detach().cpu().contiguous()
    name = str(plain.dtype).removeprefix("torch.")
    if plain.dtype == torch.bfloat16:
        plain = plain.view(torch.int16)
    if plain.layout != torch.strided or plain.is_quantized:
        raise NotDataError(f"a {plain.layout} tensor")
    return [name, _dump_array(plain.numpy())]


def _load_tensor(dump: Any, bounds: Bounds) -> Any:
    import torch

    tensor = torch.from_numpy(_load_array(dump[1], bounds))
    return tensor.view(torch.bfloat16) if dump[0] == "bfloat16" else tensor


_LISTED_DTYPES = {"object", "str", "string", "category", "boolean", "Int64", "Float64"}


def _dump_series(series: Any) -> list[Any]:
    """Dump a Series or an Index: its name, dtype and values."""
    dtype = str(series.dtype)
    if getattr(series, "nlevels", 1) > 1:  # an index of several levels, whose labels are tuples
        return [None, "object", series.tolist()]
    if getattr(series.dtype, "kind", "O") in "biufcmM" and not hasattr(series.dtype, "tz"):
        array = series.to_numpy()
        if array.dtype.kind in "biufcmM":
            return [series.name, "", array]
    if dtype not in _LISTED_DTYPES:
        raise NotDataError(f"a pandas column of dtype {dtype}")
    missing = series.isna().tolist()
    return [series.name, dtype, [None if gone else value for value, gone in zip(series.tolist(), missing, strict=True)]]


def _load_values(dump: Any) -> Any:
    import pandas as pd

    name, dtype, values = dump
    if dtype and dtype not in _LISTED_DTYPES:
        raise RefusedError(f"a pandas column of dtype {dtype}")
    return pd.Series(values, name=name, dtype=dtype or None)


def _load_index(dump: Any) -> Any:
    import pandas as pd

    values = _load_values(dump)
    return pd.Index(values.array, name=dump[0])


def _load_series(dump: Any, bounds: Bounds) -> Any:
    series = _load_values(dump[0])
    series.index = _load_index(dump[1])
    return series


def _dump_frame(frame: Any) -> list[Any]:
    columns = [_dump_series(frame.iloc[:, position]) for position in range(frame.shape[1])]
    return [columns, _dump_series(frame.index)]


def _load_frame(dump: Any, bounds: Bounds) -> Any:
    import pandas as pd

    columns, index = [_load_values(column) for column in dump[0]], _load_index(dump[1])
    frame = pd.DataFrame(dict(enumerate(columns)))
    frame = frame if columns else pd.DataFrame(index=range(len(index)))
    frame.columns = pd.Index([column[0] for column in dump[0]])
    frame.index = index
    return frame


def _load_record(dump: Any, bounds: Bounds) -> Record:
    kind, type_name, values = dump
    if not (isinstance(kind, str) and isinstance(type_name, str) and isinstance(values, dict)):
        raise RefusedError("a malformed record")
    return Record(kind, type_name[:100], values)


_KINDS: dict[str, _Kind] = {
    "builtins.tuple": _Kind(1, list, lambda dump, _: tuple(dump)),
    "builtins.set": _Kind(2, list, lambda dump, _: set(_spread(dump))),
    "builtins.frozenset": _Kind(3, list, lambda dump, _: frozenset(_spread(dump))),
    "builtins.int": _Kind(4, str, _load_integer),
    "builtins.complex": _Kind(5, lambda z: [z.real, z.imag], lambda dump, _: complex(*dump)),
    "decimal.Decimal": _Kind(6, str, _load_decimal),
    "datetime.datetime": _Kind(7, datetime.datetime.isoformat, lambda dump, _: datetime.datetime.fromisoformat(dump)),
    "datetime.date": _Kind(8, datetime.date.isoformat, lambda dump, _: datetime.date.fromisoformat(dump)),
    "datetime.time": _Kind(9, datetime.time.isoformat, lambda dump, _: datetime.time.fromisoformat(dump)),
    "datetime.timedelta": _Kind(
        10, lambda d: [d.days, d.seconds, d.microseconds], lambda dump, _: datetime.timedelta(*dump)
    ),
    "numpy.ndarray": _Kind(11, _dump_array, _load_array),
    "numpy.generic": _Kind(12, _dump_array, _load_scalar),
    "torch.Tensor": _Kind(13, _dump_tensor, _load_tensor),
    "pandas.Series": _Kind(14, lambda s: [_dump_series(s), _dump_series(s.index)], _load_series),
    "pandas.DataFrame": _Kind(15, _dump_frame, _load_frame),
    "record": _Kind(16, lambda record: record, _load_record),
}
_BY_CODE = {kind.code: kind for kind in _KINDS.values()}
_REFERENCE = {"object": 40, "lent": 41}
_REFERENCE_NAMES = {code: name for name, code in _REFERENCE.items()}

# Where libraries keep their types, as seen in `type(value)`: the exact types that cross as data.
_EXACT = {
    ("torch.nn.parameter", "Parameter"): "torch.Tensor",
    ("pandas.core.series", "Series"): "pandas.Series",
    ("pandas.core.frame", "DataFrame"): "pandas.DataFrame",
    ("pandas", "Series"): "pandas.Series",
    ("pandas", "DataFrame"): "pandas.DataFrame",
    ("pandas", "Timestamp"): "datetime.datetime",
    ("pandas._libs.tslibs.timestamps", "Timestamp"): "datetime.datetime",
}


def _kind_of(value: Any) -> _Kind | None:
    place = (type(value).__module__, type(value).__qualname__)
    name = _EXACT.get(place, ".".join(place))
    if name in _KINDS:
        return _KINDS[name]
    numpy = sys.modules.get("numpy")
    if place[0] == "numpy" and numpy is not None and isinstance(value, numpy.generic):
        return _KINDS["numpy.generic"]
    return None


def _record_of(value: Any) -> list[Any] | None:
    """Dump a pydantic model, dataclass, named tuple or enum member as a record; None for everything else."""
    kind = type(value)
    if isinstance(value, Enum):
        return ["enum", kind.__name__, {"name": value.name, "value": value.value}]
    if is_dataclass(value) and not isinstance(value, type):
        return ["dataclass", kind.__name__, {f.name: getattr(value, f.name) for f in fields(value)}]
    if isinstance(value, tuple) and hasattr(kind, "_fields"):
        return ["namedtuple", kind.__name__, dict(zip(kind._fields, value, strict=False))]
    if not isinstance(value, type) and hasattr(kind, "model_fields") and hasattr(kind, "model_validate"):
        return ["pydantic", kind.__name__, {name: getattr(value, name) for name in kind.model_fields}]
    return None


class _Encoder:
    def __init__(self, export: Exporter | None) -> None:
        self.export = export
        self.depth = 0

    def pack(self, value: Any) -> bytes:
        self.depth += 1
        if self.depth > Bounds.nesting:
            raise NotDataError("data nested too deeply")
        try:
            packed: bytes = msgpack.packb(value, default=self.extend, strict_types=True, use_bin_type=True)
        except UnicodeEncodeError as error:
            raise NotDataError("text that is not valid Unicode") from error
        except (ValueError, OverflowError, RecursionError) as error:
            if isinstance(error, NotDataError):
                raise
            raise NotDataError(f"data that cannot be sent ({error})") from error
        self.depth -= 1
        return packed

    def extend(self, value: Any) -> msgpack.ExtType:
        if isinstance(value, Record):
            dump: list[Any] | None = [value.kind, value.type_name, value.fields]
        else:
            kind = _kind_of(value)
            if kind is not None:
                return msgpack.ExtType(kind.code, self.pack(kind.dump(value)))
            dump = _record_of(value)
        if dump is not None:
            return msgpack.ExtType(_KINDS["record"].code, self.pack(dump))
        name = self.export(value) if self.export else None
        if name is None:
            raise NotDataError(f"an object of type {type(value).__name__}")
        return msgpack.ExtType(_REFERENCE[name[0]], self.pack(name[1]))


class _Decoder:
    def __init__(self, bounds: Bounds, import_: Importer | None) -> None:
        self.bounds = bounds
        self.import_ = import_
        self.depth = 0

    def unpack(self, frame: bytes) -> Any:
        self.depth += 1
        if self.depth > self.bounds.nesting:
            raise RefusedError("data nested too deeply")
        value = msgpack.unpackb(
            frame,
            ext_hook=self.extend,
            object_pairs_hook=_mapping,
            raw=False,
            strict_map_key=False,
            max_array_len=self.bounds.items,
            max_map_len=self.bounds.items,
        )
        self.depth -= 1
        return value

    def extend(self, code: int, payload: bytes) -> Any:
        if code in _REFERENCE_NAMES:
            if self.import_ is None:
                raise RefusedError("an object where only data may come")
            return self.import_(_REFERENCE_NAMES[code], int(self.unpack(payload)))
        if code not in _BY_CODE:
            raise RefusedError(f"unknown extension {code}")
        return _BY_CODE[code].load(self.unpack(payload), self.bounds)


_ALWAYS_FINITE = frozenset({type(None), bool, int, str, bytes})
_COLLECTIONS = frozenset({list, tuple, set, frozenset})


@_refusing()
def require_bounds(value: Any, bounds: Bounds) -> None:
    """Walk decoded data once: count items, bound the nesting; raise RefusedError, also for what is not finite."""
    level, depth, items = [value], 0, 0
    while level:
        items += len(level)
        if items > bounds.items:
            raise RefusedError(f"more than {bounds.items:,} items")
        if depth > bounds.nesting:
            raise RefusedError(f"data nested more than {bounds.nesting} deep")
        inside: list[Any] = []
        for current in level:
            kind = type(current)
            if kind in _ALWAYS_FINITE:
                continue
            if kind is dict:
                inside += current
                inside += current.values()
            elif kind in _COLLECTIONS:
                inside += current
            elif kind is Record:
                inside.append(current.fields)
            elif kind.__module__.partition(".")[0] == "pandas" and hasattr(current, "dtypes"):
                inside += _members(current)
            elif bounds.finite and (found := _not_finite(current)):
                raise RefusedError(found)
        level, depth = inside, depth + 1


def _members(table: Any) -> list[Any]:
    """Return what a Series or DataFrame is made of: the values of each column and of the index, and their names."""
    columns = [table.iloc[:, place] for place in range(table.shape[1])] if table.ndim == 2 else [table]
    members: list[Any] = []
    for column in (*columns, table.index):
        members.append(column.name)
        if str(column.dtype) in _LISTED_DTYPES:  # where a missing value may be NaN
            members += column[~column.isna()].tolist()
        else:
            members.append(column.to_numpy())
    return members


def _not_finite(value: Any) -> str:
    """Say where a value is not finite; the empty string if it is."""
    if type(value) is float:
        return "" if math.isfinite(value) else f"{value}"
    if type(value) is complex:
        return "" if math.isfinite(value.real) and math.isfinite(value.imag) else f"{value}"
    if type(value) is Decimal:
        return "" if value.is_finite() else f"{value}"
    kind = type(value).__module__.partition(".")[0]
    if kind == "torch" and value.is_floating_point():
        return _not_finite_array(value.float().numpy())
    if kind == "numpy" and value.dtype.kind in "fc":
        return _not_finite_array(value)
    return ""


def _not_finite_array(array: Any) -> str:
    import numpy as np

    finite = np.isfinite(array)
    if finite.all():
        return ""
    where = np.argwhere(~finite)[0]
    place = f" at index [{', '.join(str(i) for i in where)}]" if where.size else ""
    return f"{array[tuple(where)]}{place}"
