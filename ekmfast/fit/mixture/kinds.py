"""The kinds of scatter matrices, and how far they are shrunk towards the common one."""

KINDS = ("spherical", "diag", "tied", "full")
MATRICES = KINDS[2:]  # whose scatters are matrices

# VARIANCE_PRIOR and MATRIX_PRIOR, and PENALTY of `student`, were chosen on problems of
# `bench/problems.py` with seeds that no published figure uses; the others are those of
# `fit.likelihood`, or hardly matter.
# A component's scale is shrunk towards 1 as if by so many rows.
SCALE_PRIOR = 10.0
# Its variances are shrunk as if by so many rows, its scatter matrix as if by so many for each
# feature and one more.
VARIANCE_PRIOR = 100.0
MATRIX_PRIOR = 2.0
# The least variance of the common scatter, in any direction, as a share of the mean over features.
LEAST_VARIANCE = {"spherical": 0.01, "diag": 0.05, "tied": 0.01, "full": 0.01}


def prior_rows(kind: str, d: int) -> float:
    """The number of rows as if by which scatter matrices are shrunk."""
    return MATRIX_PRIOR * (d + 1) if kind == "full" else VARIANCE_PRIOR
