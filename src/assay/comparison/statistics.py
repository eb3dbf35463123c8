"""Statistics of paired differences. `docs/statistics.md` derives each and names its source.

All functions take float64 arrays `[..., n]`: n differences, one per pair, on the last axis; leading axes are
independent data sets, done at once. Random numbers come from fixed seeds: equal records give equal numbers.
Only `scipy.special` is imported, and late: `scipy.stats` costs over a second at import. The tests hold each
function against `scipy.stats` or `statsmodels`.
"""

import math
from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from assay.config.schema import LEAST_NOISE_PAIRS

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
_Extreme = Callable[[Floats, Floats], NDArray[np.bool_]]

ENUMERATED_PAIRS = 20
"""Up to this many pairs all sign patterns are enumerated; beyond, they are drawn."""
MONTE_CARLO_FLIPS = 99_999
POWER = 0.8
"""Power for which further pairs are planned."""
_SEED = 20_250_601
_TIE = 1e-9
"""Sums closer than this share of the largest possible sum are ties: differences of decimals are not exact."""
_CHUNK = 1 << 22
"""Numbers held at once, 32 MiB."""


def mean_is_constant(differences: Floats) -> NDArray[np.bool_]:
    """Whether all n differences are the same up to rounding: `[...]`."""
    spread = differences.max(axis=-1) - differences.min(axis=-1)
    result: NDArray[np.bool_] = spread <= _TIE * np.abs(differences).max(axis=-1)
    return result


# --- interval -------------------------------------------------------------------------------------------


@lru_cache(maxsize=2)
def resampling_weights(n: int, resamples: int) -> Floats:
    """How often each of n pairs is drawn, as share of n: `[n, resamples]`."""
    draws = np.random.default_rng(_SEED).integers(0, n, (resamples, n))
    flat = (draws + np.arange(resamples)[:, None] * n).ravel()
    counts = np.bincount(flat, minlength=resamples * n).reshape(resamples, n)
    return np.ascontiguousarray(counts.T / n)


def bca_interval(differences: Floats, *, confidence: float, resamples: int) -> tuple[Floats, Floats]:
    """Bias-corrected and accelerated bootstrap interval of the mean (Efron 1987): low and high, `[...]`.

    NaN where it does not exist: fewer than three pairs, or all differences the same.
    """
    shape, n = differences.shape[:-1], differences.shape[-1]
    flat = differences.reshape(-1, n)
    low, high = np.full(len(flat), np.nan), np.full(len(flat), np.nan)
    usable = np.flatnonzero(~mean_is_constant(flat)) if n >= 3 else np.empty(0, dtype=np.intp)
    for part in _parts(usable, resamples):
        low[part], high[part] = _bca(flat[part], confidence, resampling_weights(n, resamples))
    return low.reshape(shape), high.reshape(shape)


def _bca(differences: Floats, confidence: float, weights: Floats) -> tuple[Floats, Floats]:
    from scipy.special import ndtr, ndtri

    observed = differences.mean(axis=-1, keepdims=True)
    centred = differences - observed
    means = np.sort(centred @ weights, axis=-1)
    tie = 1e-12 * np.abs(centred).max(axis=-1, keepdims=True)
    below = ((means < -tie).mean(axis=-1) + (means <= tie).mean(axis=-1)) / 2
    bias = ndtri(below)
    # The jackknife's values of a mean are centred / (n - 1), up to sign: its factor cancels.
    acceleration = (centred**3).sum(axis=-1) / (6 * (centred**2).sum(axis=-1) ** 1.5)
    ends = []
    for z in (ndtri((1 - confidence) / 2), ndtri((1 + confidence) / 2)):
        shifted = bias + z
        level = ndtr(bias + shifted / (1 - acceleration * shifted))
        ends.append(_sorted_quantile(means, level) + observed[:, 0])
    return ends[0], ends[1]


def _sorted_quantile(ordered: Floats, level: Floats) -> Floats:
    """Linear interpolation between order statistics, row by row (`numpy.quantile`'s default)."""
    position = level * (ordered.shape[-1] - 1)
    index = np.clip(np.floor(position).astype(np.intp), 0, ordered.shape[-1] - 2)
    rows = np.arange(len(ordered))
    left, right = ordered[rows, index], ordered[rows, index + 1]
    result: Floats = left + (position - index) * (right - left)
    return result


# --- tests ----------------------------------------------------------------------------------------------


def sign_flip_p(differences: Floats) -> Floats:
    """Two-sided p of the sign-flip test of a mean of zero (Fisher 1935; Pitman 1937): `[...]`.

    Exact under symmetry about zero: all 2^n sign patterns up to `ENUMERATED_PAIRS`, beyond it (b + 1)/(m + 1)
    over m random patterns (Phipson and Smyth 2010).
    """
    observed = np.abs(differences.sum(axis=-1))
    return _share_of_flips(differences, lambda sums, least: np.abs(sums) >= least, observed, halved=True)


def sign_flip_p_less(differences: Floats) -> Floats:
    """One-sided p against a mean of zero or more: small where the mean is below zero: `[...]`."""
    return _share_of_flips(differences, lambda sums, least: sums >= least, -differences.sum(axis=-1))


def equivalence_p(differences: Floats, margin: float) -> Floats:
    """p of two one-sided sign-flip tests of |mean| >= margin (Schuirmann 1987): the larger of the two."""
    assert margin > 0
    below_upper = sign_flip_p_less(differences - margin)
    above_lower = sign_flip_p_less(-differences - margin)
    return np.maximum(below_upper, above_lower)


def _share_of_flips(
    differences: Floats, extreme: _Extreme, observed: Floats, *, halved: bool = False
) -> Floats:
    """halved: a pattern and its opposite are alike, so that the first sign can stay."""
    shape, n = differences.shape[:-1], differences.shape[-1]
    flat = differences.reshape(-1, n)
    least = observed.reshape(-1, 1) - _TIE * np.abs(flat).sum(axis=-1, keepdims=True)
    if n > ENUMERATED_PAIRS:
        counts = np.zeros(len(flat))
        for signs in _random_signs(n):
            for part in _parts(np.arange(len(flat)), signs.shape[1]):
                counts[part] += extreme(flat[part] @ signs, least[part]).sum(axis=-1)
        return ((counts + 1) / (MONTE_CARLO_FLIPS + 1)).reshape(shape)
    result = np.empty(len(flat))
    kept = 1 if halved else 0
    for part in _parts(np.arange(len(flat)), 2 ** (n - kept)):
        sums = flat[part, :kept].sum(axis=-1, keepdims=True) + _all_flipped_sums(flat[part, kept:])
        result[part] = extreme(sums, least[part]).mean(axis=-1)
    return result.reshape(shape)


def _all_flipped_sums(differences: Floats) -> Floats:
    """Sums over every pattern of signs: `[rows, n]` to `[rows, 2^n]`, by doubling."""
    sums = np.zeros((len(differences), 1))
    for index in range(differences.shape[-1]):
        value = differences[:, index : index + 1]
        sums = np.concatenate((sums + value, sums - value), axis=-1)
    return sums


def _random_signs(n: int) -> Iterator[Floats]:
    """Random patterns `[n, m]` in pieces, `MONTE_CARLO_FLIPS` in all, the same at every call."""
    generator = np.random.default_rng(_SEED)
    step = max(1, _CHUNK // (8 * n))
    for start in range(0, MONTE_CARLO_FLIPS, step):
        m = min(step, MONTE_CARLO_FLIPS - start)
        yield generator.integers(0, 2, (n, m), dtype=np.int8).astype(np.float64) * 2 - 1


def _parts(rows: NDArray[np.intp], width: int) -> Iterator[NDArray[np.intp]]:
    step = max(1, _CHUNK // width)
    for start in range(0, len(rows), step):
        yield rows[start : start + step]


def minimum_p(differences: Floats) -> float:
    """Smallest two-sided p that these n differences `[n]` could have reached, whatever their signs.

    2^(1-k) for k differences that are not zero; not below 1/(m + 1) where patterns are drawn.
    """
    p = 2.0 ** (1 - np.count_nonzero(differences)) if differences.any() else 1.0
    return max(p, 1 / (MONTE_CARLO_FLIPS + 1)) if differences.size > ENUMERATED_PAIRS else p


# --- noise floor ------------------------------------------------------------------------------------------


def noise_floor(differences: Floats, pairs: int, *, alpha: float) -> Floats:
    """|mean| of `pairs` further differences that chance exceeds with probability alpha at most: `[...]`.

    From differences of an arm to itself: the further end of the prediction interval for a future mean (Hahn and
    Meeker 1991), |mean| + t_{n-1, 1-alpha/2} sd sqrt(1/n + 1/pairs). The mean is not taken for zero, so that what
    held one of the two back throughout is in it. NaN for fewer than `LEAST_NOISE_PAIRS`; 0 where all are zero.
    """
    from scipy.special import stdtrit

    n = differences.shape[-1]
    if n < LEAST_NOISE_PAIRS:
        return np.full(differences.shape[:-1], np.nan)
    width = float(stdtrit(n - 1, 1 - alpha / 2)) * math.sqrt(1 / n + 1 / pairs)
    result: Floats = np.abs(differences.mean(axis=-1)) + width * differences.std(axis=-1, ddof=1)
    return result


def most_that_differ(differing: int, pairs: int, *, alpha: float) -> float:
    """Upper Clopper-Pearson bound, one-sided, of the share of pairs that differ: 39% for none of six at 0.05."""
    from scipy.special import betaincinv

    return float(betaincinv(differing + 1, pairs - differing, 1 - alpha)) if differing < pairs else 1.0


# --- effect sizes ---------------------------------------------------------------------------------------


def standardised_mean(differences: Floats) -> Floats:
    """Mean over standard deviation of the differences, corrected for small samples: `[...]`.

    Cohen's d_z times Hedges' (1981) exact J = gamma(f/2) / (sqrt(f/2) gamma((f-1)/2)), f = n - 1. NaN where
    n < 3 or all differences are the same.
    """
    n = differences.shape[-1]
    if n < 3:
        return np.full(differences.shape[:-1], np.nan)
    freedom = n - 1
    correction = math.exp(math.lgamma(freedom / 2) - math.lgamma((freedom - 1) / 2)) / math.sqrt(freedom / 2)
    deviation = np.where(mean_is_constant(differences), np.nan, differences.std(axis=-1, ddof=1))
    result: Floats = correction * differences.mean(axis=-1) / deviation
    return result


def probability_above(differences: Floats, *, confidence: float) -> tuple[float, float, float]:
    """Share of pairs `[n]` above zero, ties half, with Clopper and Pearson's (1934) interval."""
    from scipy.special import betaincinv

    n, tail = differences.size, (1 - confidence) / 2
    above = float((differences > 0).sum() + 0.5 * (differences == 0).sum())
    low = float(betaincinv(above, n - above + 1, tail)) if above > 0 else 0.0
    high = float(betaincinv(above + 1, n - above, 1 - tail)) if above < n else 1.0
    return above / n, low, high


# --- planning -------------------------------------------------------------------------------------------


def pairs_for_any_verdict(alpha: float, *, sides: int = 2) -> int:
    """Fewest pairs with which the exact sign-flip test can reach p <= alpha: six for 0.05 two-sided."""
    return math.ceil(math.log2(sides / alpha) - 1e-12)


def pairs_for_difference(mean: float, deviation: float, *, alpha: float, power: float = POWER) -> int | None:
    """Pairs with which a difference as large as `mean` is found with this power; None: not within 10^6.

    Normal approximation with Guenther's (1981) correction for the t distribution:
    n = ((z_{1-alpha/2} + z_power) sd/mean)^2 + z_{1-alpha/2}^2 / 2; never fewer than the exact test needs.
    """
    from scipy.special import ndtri

    z_alpha, z_power = float(ndtri(1 - alpha / 2)), float(ndtri(power))
    if abs(mean) * 1e3 <= (z_alpha + z_power) * deviation or mean == 0:
        return None
    n = ((z_alpha + z_power) * deviation / mean) ** 2 + z_alpha**2 / 2
    return max(math.ceil(n), pairs_for_any_verdict(alpha))


def pairs_for_equivalence(
    mean: float, deviation: float, margin: float, *, alpha: float, power: float = POWER
) -> int | None:
    """Pairs with which |mean| < margin is shown; None: the mean is not inside, or not within 10^6.

    Chow, Shao and Wang (2008): n = ((z_{1-alpha} + z_{1-(1-power)/2}) sd/(margin - |mean|))^2, with the same
    correction.
    """
    from scipy.special import ndtri

    z_alpha, z_power = float(ndtri(1 - alpha)), float(ndtri(1 - (1 - power) / 2))
    room = margin - abs(mean)
    if room <= 0 or room * 1e3 <= (z_alpha + z_power) * deviation:
        return None
    n = ((z_alpha + z_power) * deviation / room) ** 2 + z_alpha**2 / 2
    return max(math.ceil(n), pairs_for_any_verdict(alpha, sides=1))


def noether_runs(probability: float, *, alpha: float, power: float) -> int:
    """Runs per arm with which P(B > A) = `probability` is found by an unpaired rank test, one-sided.

    Noether (1987) as Bouthillier et al. (2021) advise it: a cross-check that needs no standard deviation.
    """
    from scipy.special import ndtri

    assert 0.5 < probability < 1
    z = float(ndtri(1 - alpha) + ndtri(power))
    return math.ceil(z**2 / (6 * (probability - 0.5) ** 2))
