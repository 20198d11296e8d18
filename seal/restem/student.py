"""How means of few values are judged: by Student's t, and below six not at all."""

from __future__ import annotations

LEAST_FOR_A_VERDICT = 6
"""All of five differences have the same sign by chance once in 16 times, of six once in 32: below
six no interval of resampled means can be right 95 times in 100, however narrow it looks."""
_NORMAL_QUANTILE = 1.959964
"""97.5 % of a normal distribution, for intervals of 95 %."""
_QUANTILE_OF_ONE = 12.7062
"""97.5 % of Student's t with one degree of freedom, where its expansion is 11 % too small."""


def student_quantile(freedom: int) -> float:
    """97.5 % of Student's t, by its expansion around the normal distribution.

    Within 1 % from 2 degrees of freedom on.
    """
    if freedom == 1:
        return _QUANTILE_OF_ONE
    z = _NORMAL_QUANTILE
    return (
        z
        + (z**3 + z) / 4 / freedom
        + (5 * z**5 + 16 * z**3 + 3 * z) / 96 / freedom**2
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384 / freedom**3
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160 / freedom**4
    )
