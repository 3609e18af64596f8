"""What crosses comes back the same; what is hostile is refused, and nothing else happens."""

import datetime
import sys
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import Any

import msgpack
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from kicourse.answers.codec import Bounds, NotDataError, Record, RefusedError, decode, encode

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.complex_numbers(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.binary()
    | st.decimals(allow_nan=False, allow_infinity=False)
    | st.datetimes()
    | st.dates()
    | st.times()
    | st.timedeltas()
)
hashables = scalars | st.tuples(scalars, scalars) | st.frozensets(scalars, max_size=3)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=5).map(tuple)
        | st.dictionaries(hashables, inner, max_size=5)
        | st.sets(hashables, max_size=5)
    ),
    max_leaves=20,
)


def round_trip(value: Any, bounds: Bounds | None = None) -> Any:
    return decode(encode(value), bounds)


@given(values)
def test_plain_data_come_back_equal_and_of_the_same_type(value: Any) -> None:
    back = round_trip(value)
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3),
        np.arange(6)[::-2],
        np.array([], dtype=np.int8),
        np.array(["a", "ü"]),
        np.array(["2026-01-01"], dtype="datetime64[D]"),
        np.array(True),
        np.array([1 + 2j]),
    ],
)
def test_arrays_come_back_with_dtype_and_shape(array: Any) -> None:
    back = round_trip(array)
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert (back == array).all()


def test_numpy_scalars_keep_their_type() -> None:
    for scalar in (np.float32(1.5), np.int8(-3), np.bool_(True), np.float64(2.0)):
        assert type(round_trip(scalar)) is type(scalar)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.bool])
def test_tensors_come_back_detached(dtype: torch.dtype) -> None:
    tensor = torch.tensor([[0, 1], [1, 0]], dtype=dtype)
    back = round_trip(tensor)
    assert back.dtype == dtype
    assert torch.equal(back, tensor)
    weight = torch.nn.Linear(2, 2).weight
    assert type(round_trip(weight)) is torch.Tensor
    assert torch.equal(round_trip(weight), weight)


def test_frames_come_back_with_index_dtypes_and_gaps() -> None:
    frame = pd.DataFrame(
        {"pump": ["a", "b"], "hours": [1.5, np.nan], "n": [1, 2], "day": pd.to_datetime(["2026-01-01", "2026-01-02"])},
        index=pd.Index([7, 9], name="row"),
    )
    pd.testing.assert_frame_equal(round_trip(frame, Bounds(finite=False)), frame)
    series = frame["n"]
    pd.testing.assert_series_equal(round_trip(series), series)
    empty = pd.DataFrame({"a": []}, index=pd.Index([], dtype="int64"))
    assert round_trip(empty).shape == (0, 1)


class Colour(Enum):
    RED = "red"


Point = namedtuple("Point", ["x", "y"])


@dataclass
class Part:
    name: str
    at: Point


class Ticket(BaseModel):
    subject: str
    colour: Colour


def test_records_arrive_as_names_and_fields() -> None:
    ticket = round_trip(Ticket(subject="leak", colour=Colour.RED))
    assert (ticket.kind, ticket.type_name, ticket["subject"]) == ("pydantic", "Ticket", "leak")
    assert ticket["colour"] == Record("enum", "Colour", {"name": "RED", "value": "red"})
    part = round_trip(Part("seal", Point(1, 2)))
    assert (part.kind, part["at"].kind, part["at"]["y"]) == ("dataclass", "namedtuple", 2)


class Sly(str):
    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = str.__hash__


@pytest.mark.parametrize("thing", [object(), Sly("x"), OrderedDict(), print, np.array([object()]), iter([]), ...])
def test_everything_else_stays_behind(thing: Any) -> None:
    with pytest.raises(NotDataError):
        encode(thing)
    with pytest.raises(NotDataError):
        encode([thing])


def test_a_value_that_holds_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(NotDataError):
        encode(loop)


def test_text_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(NotDataError):
        encode("\ud800")
    for number in (0xD800, 0x110000, 2**32 - 1):
        for order in "<>":
            array = np.array([97, number], dtype=f"{order}u4").view(f"{order}U1")
            with pytest.raises(RefusedError, match="not valid Unicode"):
                round_trip(array)


@pytest.mark.parametrize(
    "value",
    [float("nan"), [float("inf")], {"a": np.array([1.0, np.nan])}, torch.tensor([float("-inf")]), Decimal("NaN"),
     pd.Series([1.0, np.inf]), np.float32("nan"), complex("nan"), pd.Series([1.0], name=float("nan")),
     pd.Series(["x", float("inf")]), pd.Series([1.0, 2.0], index=[np.inf, 1.0]), pd.DataFrame({"a": [1.0, np.nan]}),
     pd.DataFrame({float("inf"): [1]}), pd.Series([1j, complex("inf")])],
)  # fmt: skip
def test_what_is_not_finite_is_refused_unless_asked_for(value: Any) -> None:
    with pytest.raises(RefusedError, match=r"nan|inf|NaN"):
        round_trip(value)
    round_trip(value, Bounds(finite=False))


@pytest.mark.parametrize("dtype", ["object", "str", "string", "category", "boolean"])
def test_what_is_missing_in_a_column_may_be_missing(dtype: str) -> None:
    column = pd.Series([True, None] if dtype in ("boolean", "object") else ["x", None], dtype=dtype)
    got = round_trip(pd.DataFrame({"a": column}))["a"]
    assert got.isna().tolist() == [False, True]
    assert str(got.dtype) == dtype


def test_bounds() -> None:
    deep: Any = 1
    for _ in range(40):
        deep = [deep]
    for value, bounds in [
        (deep, Bounds()),
        (list(range(100)), Bounds(items=50)),
        ("x" * 100, Bounds(size=50)),
        (10**2000, Bounds()),
        (Decimal("1e999999"), Bounds()),
    ]:
        with pytest.raises(RefusedError):
            decode(encode(value), bounds)


@pytest.mark.parametrize("place", ["set", "frozenset", "keys"])
def test_members_that_all_share_one_hash_are_refused_before_they_are_compared(place: str) -> None:
    members = [msgpack.ExtType(4, msgpack.packb(str(sys.hash_info.modulus * factor + 1))) for factor in range(5_000)]
    packed = msgpack.packb(dict.fromkeys(members)) if place == "keys" else msgpack.packb(members)
    code = {"set": 2, "frozenset": 3}
    with pytest.raises(RefusedError, match="the same hash"):
        decode(packed if place == "keys" else msgpack.packb(msgpack.ExtType(code[place], packed)))
    assert round_trip(set(range(5_000))) == set(range(5_000))


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_data_or_refused(frame: bytes) -> None:
    try:
        value = decode(frame)
    except RefusedError:
        return
    encode(value)


@given(st.integers(0, 60), st.binary(max_size=60))
def test_arbitrary_extensions_are_data_or_refused(code: int, payload: bytes) -> None:
    frame = msgpack.packb(msgpack.ExtType(code, payload))
    try:
        decode(frame)
    except RefusedError:
        return


def test_an_array_that_claims_more_than_it_carries_is_refused() -> None:
    inner = msgpack.packb(["<f8", [10**9, 10**9], b"12345678"])
    with pytest.raises(RefusedError):
        decode(msgpack.packb(msgpack.ExtType(11, inner)))
    for dtype in ("O", "V8", "not a dtype"):
        inner = msgpack.packb([dtype, [1], b"12345678"])
        with pytest.raises(RefusedError):
            decode(msgpack.packb(msgpack.ExtType(11, inner)))


def test_an_object_may_not_come_where_only_data_may() -> None:
    frame = encode(object(), lambda thing: ("object", 1))
    with pytest.raises(RefusedError):
        decode(frame)


def test_dates_keep_their_zone() -> None:
    moment = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    assert round_trip(moment) == moment
    assert round_trip(moment).tzinfo is not None
