"""A simulated fleet of pumps that wear out, because no real run-to-failure data come with any package.

Every pump has two kinds of hidden wear, of its bearing and of its seal. Wear starts near 0 and grows each day,

    wear[t] = wear[t-1] + rate · load(regime[t]) · Gamma(mean 1) + shock[t]

with a rate of its own (lognormal across pumps) and rare shocks. A pump fails on the first day on which one
of the two reaches the pump's own limit, which lies around 1. Nobody measures wear. What is measured is

    sensor[t] = baseline(regime[t]) + offset of the pump + Σ sensitivity(kind) · wear(kind)[t]⁵ + noise[t]

where noise is autoregressive, noise[t] = 0.2 · noise[t-1] + ε. The fifth power keeps the signs of wear faint
until late. Then readings get lost (dropouts, NaN) and sensors hang (the last value is repeated for some days).
A pump whose observation ends before it fails is censored: how long it would have lived, nobody knows.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Array = NDArray[np.float64]
Value = TypeVar("Value", bound=np.generic)

MODES = ("bearing", "seal")


@dataclass(frozen=True)
class Regime:
    """A way of running the pump; `load` multiplies the speed of wear, `share` is how common it is."""

    name: str
    share: float
    load: float


@dataclass(frozen=True)
class Sensor:
    """A daily mean of one measurement.

    `baseline` holds the level of a new pump in each regime, `bearing` and `seal` what full wear adds to it, and
    `spread` the standard deviation of its noise; all in `unit`.
    """

    name: str
    unit: str
    baseline: tuple[float, float, float, float]
    bearing: float
    seal: float
    spread: float


REGIMES = (
    Regime("low_flow", 0.15, 0.3),
    Regime("part_load", 0.30, 0.7),
    Regime("rated", 0.40, 1.0),
    Regime("overload", 0.15, 2.2),
)

SENSORS = (
    Sensor("vibration", "mm/s", (2.0, 2.4, 2.7, 3.2), 1.6, 0.0, 0.6),
    Sensor("bearing_temperature", "°C", (46.0, 52.0, 56.0, 64.0), 14.0, 0.0, 6.0),
    Sensor("noise_level", "dB", (66.0, 70.0, 72.0, 76.0), 6.0, 1.6, 4.0),
    Sensor("motor_current", "A", (15.0, 17.5, 19.0, 22.5), 2.7, 2.0, 3.0),
    Sensor("flow", "m³/h", (42.0, 54.0, 60.0, 68.0), 0.0, -16.0, 10.0),
    Sensor("discharge_pressure", "bar", (4.6, 5.5, 6.0, 6.6), 0.0, -1.6, 1.0),
    Sensor("suction_pressure", "bar", (0.95, 0.90, 0.85, 0.75), 0.0, 0.0, 0.2),
    Sensor("seal_leakage", "ml/h", (6.0, 7.5, 8.5, 11.0), 0.0, 7.0, 3.0),
)

NAMES = tuple(sensor.name for sensor in SENSORS)


@dataclass(frozen=True)
class Fleet:
    """What the service desk knows about its pumps, and the wear that only the simulation knows.

    `readings`: a row for each pump and day that was observed: `pump`, `day` (since installation, from 0), `regime`
    and one column a sensor (`NAMES`; NaN where a reading was lost), sorted by pump and day.
    `outcomes`: a row for each pump, indexed by `pump`: `last_day` observed, `failed` (whether it failed on the evening
    of that day; a pump that did not is censored) and `mode` ("bearing", "seal", or missing).
    `wear`: like `readings`, with the columns `pump`, `day`, `bearing` and `seal`. For pictures, never for a model.
    """

    readings: pd.DataFrame
    outcomes: pd.DataFrame
    wear: pd.DataFrame


def simulate(rng: np.random.Generator, pumps: int = 200, days: int = 365) -> Fleet:
    """Draw a fleet of `pumps` pumps, each observed from its installation for at most `days` days (60 or more).

    The same generator state gives the same fleet. 200 pumps take a tenth of a second.
    """
    regime = _regimes(rng, pumps, days)
    wear = _wear(rng, regime)
    limit = rng.lognormal(0.0, 0.01, size=(pumps, 1, 1))
    exceeded = np.any(np.greater_equal(wear, limit), axis=2)
    failure_day = np.where(exceeded.any(axis=1), exceeded.argmax(axis=1), days)
    censoring_day = rng.integers(days // 3, days, size=pumps)
    last_day = np.minimum(failure_day, censoring_day)
    failed = failure_day <= censoring_day
    mode = np.array(MODES)[wear[np.arange(pumps), last_day].argmax(axis=1)]

    values = _damage(rng, _measurements(rng, regime, wear))
    names = np.array([f"P{number:03d}" for number in range(1, pumps + 1)])
    seen = np.arange(days) <= last_day[:, None]
    pump, day = np.nonzero(seen)
    where = pd.DataFrame({"pump": names[pump], "day": day})
    regimes = pd.Series(np.array([r.name for r in REGIMES])[regime[seen]], name="regime")
    readings = pd.concat([where, regimes, pd.DataFrame(values[seen], columns=list(NAMES))], axis=1)
    outcomes = pd.DataFrame(
        {"last_day": last_day, "failed": failed, "mode": pd.Series(mode).where(failed).to_numpy()},
        index=pd.Index(names, name="pump"),
    )
    return Fleet(readings, outcomes, pd.concat([where, pd.DataFrame(wear[seen], columns=list(MODES))], axis=1))


def _regimes(rng: np.random.Generator, pumps: int, days: int) -> NDArray[np.intp]:
    """The regime of each pump and day: kept from the day before with probability 0.5, else drawn by its share."""
    drawn = rng.choice(len(REGIMES), size=(pumps, days), p=[regime.share for regime in REGIMES])
    changes = rng.random((pumps, days)) >= 0.5
    return np.asarray(_hold(drawn, since=changes), dtype=np.intp)


def _wear(rng: np.random.Generator, regime: NDArray[np.intp]) -> Array:
    """Wear of both modes, shape (pumps, days, 2); it never falls."""
    pumps, days = regime.shape
    start = rng.uniform(0.0, 0.2, size=(pumps, 1, 2))
    rate = rng.lognormal(np.log(1 / 420), 0.45, size=(pumps, 1, 2))
    load = np.array([r.load for r in REGIMES])[regime][:, :, None]
    growth = rate * load * rng.gamma(0.5, 2.0, size=(pumps, days, 2))
    shocks = (rng.random((pumps, days, 2)) < 0.0015) * rng.exponential(0.25, size=(pumps, days, 2))
    return np.asarray(start + np.cumsum(growth + shocks, axis=1))


def _measurements(rng: np.random.Generator, regime: NDArray[np.intp], wear: Array) -> Array:
    """What intact sensors would show, shape (pumps, days, sensors)."""
    pumps, days = regime.shape
    baseline = np.array([sensor.baseline for sensor in SENSORS]).T
    sensitivity = np.array([[sensor.bearing, sensor.seal] for sensor in SENSORS]).T
    spread = np.array([sensor.spread for sensor in SENSORS])
    offset = 0.2 * spread * rng.normal(size=(pumps, 1, len(SENSORS)))
    signs = wear**5 @ sensitivity
    return np.asarray(baseline[regime] + offset + signs + spread * _noise(rng, pumps, days))


def _noise(rng: np.random.Generator, pumps: int, days: int, memory: float = 0.2) -> Array:
    """Autoregressive noise of standard deviation 1, shape (pumps, days, sensors)."""
    noise = rng.normal(size=(pumps, days, len(SENSORS)))
    fresh = np.sqrt(1 - memory**2)
    for day in range(1, days):
        noise[:, day] = memory * noise[:, day - 1] + fresh * noise[:, day]
    return noise


def _damage(rng: np.random.Generator, values: Array) -> Array:
    """Let sensors hang for about ten days now and then, and lose about 4 % of all readings in gaps of some days."""
    stuck = _episodes(rng, values.shape, start=0.0008, mean_days=10)
    lost = _episodes(rng, values.shape, start=0.016, mean_days=2.5)
    return np.where(lost, np.nan, _hold(values, since=~stuck))


def _episodes(rng: np.random.Generator, shape: tuple[int, ...], start: float, mean_days: float) -> NDArray[np.bool_]:
    """Mark stretches of days: one starts with probability `start` a day and lasts `mean_days` on average."""
    begins = rng.random(shape) < start
    length = rng.geometric(1 / mean_days, size=shape)
    day = np.arange(shape[1]).reshape(1, -1, *[1] * (len(shape) - 2))
    ends = np.maximum.accumulate(np.where(begins, day + length, 0), axis=1)
    return np.asarray(day < ends)


def _hold(values: NDArray[Value], since: NDArray[np.bool_]) -> NDArray[Value]:
    """Repeat along the days (axis 1) the value of the last day on which `since` was true."""
    day = np.arange(values.shape[1]).reshape(1, -1, *[1] * (values.ndim - 2))
    source = np.maximum.accumulate(np.where(since, day, 0), axis=1)
    return np.take_along_axis(values, source, axis=1)
