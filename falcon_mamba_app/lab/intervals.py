"""How far a share of a few answers can be trusted."""

from __future__ import annotations

from math import sqrt

Z_95 = 1.959964  # of the normal distribution, for 95 % of all cases


def wilson(num_right: int, num_asked: int, z: float = Z_95) -> tuple[float, float]:
    """The interval that holds the true share in 95 of 100 cases (Wilson, 1927); 0 to 1 without an
    answer. Unlike the share ± its deviation it stays within 0 and 1, and is right for few answers.
    """
    if not 0 <= num_right <= num_asked:
        raise ValueError(f"{num_right} of {num_asked} answers cannot be right")
    if num_asked == 0:
        return 0.0, 1.0
    share, more = num_right / num_asked, z * z / num_asked
    middle = (share + more / 2) / (1 + more)
    half = z * sqrt(share * (1 - share) / num_asked + more / (4 * num_asked)) / (1 + more)
    return max(0.0, middle - half), min(1.0, middle + half)
