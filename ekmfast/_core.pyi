from typing import Any, TypeAlias

from numpy import bool_, float32, float64, int8, int32, int64
from numpy.typing import NDArray

_Samples: TypeAlias = NDArray[float32] | NDArray[float64]
_Double: TypeAlias = NDArray[float64]

compiler: str
theta: float
max_halvings: int

def statistics(
    X: _Samples,
    centroids: _Double,
    alpha: _Double,
    sample_weight: _Samples | None,
    reference: _Double | None,
    n_threads: int,
    weighting: str = "equilibrium",
    fuzzifier: float = 2.0,
    rescue: bool = True,
    factor: _Samples | None = None,
    rounded: bool = False,
) -> tuple[_Double, _Double, _Double, _Double, _Double, _Double]: ...
def least_mass(float32: bool) -> float: ...
def weights(
    X: _Samples,
    centroids: _Double,
    alpha: float,
    out: _Samples,
    n_threads: int,
    factor: _Samples | None = None,
) -> float: ...
def assign(
    X: _Samples,
    centroids: _Double,
    labels: NDArray[int32],
    squared_distances: _Samples,
    n_threads: int,
    factor: _Samples | None = None,
) -> float: ...
def label_each(
    X: _Samples,
    centroids: _Double,
    names: NDArray[int32],
    n_threads: int,
    factor: _Samples | None = None,
) -> NDArray[int32]: ...
def closest(
    X: _Samples,
    candidates: _Double,
    closest: _Samples,
    sample_weight: _Samples | None,
    reference: _Double | None,
    n_threads: int,
    update: bool = False,
    factor: _Samples | None = None,
) -> _Double: ...
def choose_rows(
    X: _Samples,
    sample_weight: _Samples | None,
    first: _Double,
    uniform: _Double,
    reference: _Double | None,
    n_threads: int,
    factor: _Samples | None = None,
) -> NDArray[int64]: ...
def draw_rows(
    closest: _Samples, sample_weight: _Double | None, uniform: _Double, n_threads: int
) -> NDArray[int64]: ...
def accumulate(
    X: _Samples, weights: _Samples, n_threads: int
) -> tuple[_Double, _Double, _Double]: ...
def survey(
    X: _Samples,
    sample_weight: _Samples | None,
    reference: _Double | None,
    n_threads: int,
    factor: _Samples | None = None,
) -> tuple[float, float, _Double, _Double, _Double, _Double]: ...
def partial_statistics(
    X: _Samples,
    centroids: _Double,
    alpha: _Double,
    sample_weight: _Samples | None,
    reference: _Double,
    n_threads: int,
    weighting: str,
    fuzzifier: float,
) -> tuple[_Double, _Double, _Double, _Double]: ...
def partial_distances(X: _Samples, centroids: _Double, n_threads: int) -> _Double: ...
def expectation(
    X: _Samples,
    sample_weight: _Samples | None,
    centre: _Double,
    unit: float,
    means: _Double,
    whiteners: _Double,
    offsets: _Double,
    degrees: _Double,
    background: _Double,
    n_threads: int,
) -> tuple[_Double, _Double, _Double, _Double, _Double, _Double, _Double]: ...
def classification_likelihoods(
    X: _Samples,
    sample_weight: _Samples | None,
    labels: NDArray[int32],
    n_clusters: int,
    tail: float,
    scale_prior: float,
    variance_prior: float,
    least_variance: float,
    reweightings: int,
    n_threads: int,
) -> _Double: ...
def renumber(labels: NDArray[int32], n_clusters: int) -> NDArray[int64]: ...
def distinct_labels(labels: NDArray[int32]) -> NDArray[int64]: ...
def shared_labels(first: NDArray[int32], second: NDArray[int32]) -> tuple[int, int, int]: ...
def merge_close(
    centroids: _Double, alphas: _Double, coincident: float, rounding: float
) -> NDArray[int32]: ...
def moments_of_labels(
    X: _Double,
    sample_weight: _Double,
    labels: NDArray[int32],
    n_clusters: int,
    full: bool,
    n_threads: int,
) -> tuple[_Double, _Double, _Double]: ...
def halves_of_labels(
    X: _Double,
    sample_weight: _Double,
    labels: NDArray[int32],
    factors: _Double,
    n_clusters: int,
    farthest: float,
    least: int,
    prior: float,
    refined: int,
    n_threads: int,
) -> tuple[_Double, NDArray[bool_]]: ...
def whiteners(scatters: _Double) -> _Double | None: ...
def maximization(
    mass: _Double,
    weight: _Double,
    first: _Double,
    second: _Double,
    background: _Double,
    means: _Double,
    scales: _Double,
    kind: str,
    prior: float,
    scale_prior: float,
    least_share: float,
    least_scatter: float,
    most_background: float,
    regularization: float | None,
    n_threads: int,
) -> tuple[_Double, _Double, _Double, _Double, _Double] | None: ...
def expectation_maximization(
    X: _Samples,
    sample_weight: _Samples | None,
    centre: _Double,
    unit: float,
    weights: _Double,
    background: _Double,
    means: _Double,
    scatters: _Double,
    scales: _Double,
    whiteners: _Double,
    degrees: _Double,
    constants: _Double,
    log_volume: float,
    likelihood: _Double,
    first: int,
    last: int,
    max_iter: int,
    total: float,
    tol: float,
    race: int,
    margin: float,
    least_likelihood: float,
    least_classified: float,
    same: float,
    kind: str,
    prior: float,
    scale_prior: float,
    least_share: float,
    least_scatter: float,
    most_background: float,
    regularization: float | None,
    rounded: bool,
    n_threads: int,
) -> tuple[
    tuple[_Double, _Double, _Double, _Double, _Double],
    _Double,
    _Double,
    NDArray[int8],
    NDArray[int64],
    int,
    tuple[_Double, _Double, _Double, _Double, _Double] | None,
]: ...
def densities(
    X: _Samples,
    centre: _Double,
    unit: float,
    means: _Double,
    whiteners: _Double,
    offsets: _Double,
    degrees: _Double,
    background: _Double,
    joint: _Samples | None,
    labels: NDArray[int32] | None,
    largest: _Samples | None,
    density: _Samples | None,
    n_threads: int,
) -> None: ...

class Csr:
    def __init__(
        self,
        values: _Samples,
        columns: NDArray[int32] | NDArray[int64],
        start: NDArray[Any],
        n_features: int,
        sample_weight: _Double | None,
    ) -> None: ...
    @property
    def ascending(self) -> bool: ...
    def statistics(
        self,
        centroids: _Double,
        alpha: _Double,
        n_threads: int,
        weighting: str,
        fuzzifier: float,
    ) -> tuple[_Double, _Double, _Double, _Double, _Double]: ...
    def weights(self, centroids: _Double, alpha: float, out: _Samples, n_threads: int) -> float: ...
    def assign(
        self,
        centroids: _Double,
        labels: NDArray[int32],
        squared_distances: _Samples,
        n_threads: int,
    ) -> float: ...
    def closest(
        self, candidates: _Double, closest: _Samples, n_threads: int, update: bool = False
    ) -> _Double: ...
    def accumulate(self, weights: _Samples, n_threads: int) -> tuple[_Double, _Double]: ...
    def distances(self, begin: int, end: int, centroids: _Double, n_threads: int) -> _Double: ...
    def expectation(
        self,
        centre: _Double,
        unit: float,
        means: _Double,
        whiteners: _Double,
        offsets: _Double,
        degrees: _Double,
        background: _Double,
        n_threads: int,
    ) -> tuple[_Double, _Double, _Double, _Double, _Double, _Double, _Double]: ...
    def densities(
        self,
        centre: _Double,
        unit: float,
        means: _Double,
        whiteners: _Double,
        offsets: _Double,
        degrees: _Double,
        background: _Double,
        joint: _Samples | None,
        labels: NDArray[int32] | None,
        largest: _Samples | None,
        density: _Samples | None,
        n_threads: int,
    ) -> None: ...
    def survey(self) -> tuple[float, _Double, float, _Double, _Double]: ...

class Solver:
    def __init__(
        self,
        starts: _Double,
        alpha: _Double,
        threshold: float,
        noise: float,
        resolution: float,
        window: int,
        compete: bool,
        low: _Double | None,
        high: _Double | None,
        space: str = "free",
    ) -> None: ...
    def candidates(self) -> tuple[_Double, _Double]: ...
    def advance(
        self,
        sum_wx: _Double,
        sum_w: _Double,
        sum_p: _Double,
        objective: _Double,
        reference: _Double,
        n_threads: int,
    ) -> None: ...
    def iterate(
        self,
        X: _Samples,
        sample_weight: _Samples | None,
        reference: _Double | None,
        max_passes: int,
        n_threads: int,
        weighting: str = "equilibrium",
        fuzzifier: float = 2.0,
        factor: _Samples | None = None,
        rounded: bool = False,
    ) -> _Double: ...
    def iterate_sparse(
        self, X: Csr, max_passes: int, n_threads: int, weighting: str, fuzzifier: float
    ) -> None: ...
    def result(self, index: int) -> dict[str, Any]: ...
    def get_run(self, index: int) -> dict[str, Any]: ...
    def position(self, index: int) -> tuple[_Double, float]: ...
    def set_run(self, index: int, state: dict[str, Any]) -> None: ...
    @property
    def positions(self) -> _Double: ...
    @property
    def objectives(self) -> _Double: ...
    @property
    def n_going(self) -> int: ...
    def __len__(self) -> int: ...

def plausible_sums(
    n: int,
    alpha: _Double,
    sum_wx: _Double,
    sum_w: _Double,
    sum_p: _Double,
    exponent: _Double,
    objective: _Double,
    float32: bool,
) -> bool: ...
def plausible_update(n: int, sum_wx: _Double, sum_w: _Double, float32: bool) -> bool: ...
def exp2_kernel(x: _Samples) -> _Samples: ...
def isa() -> str: ...
def set_isa(name: str) -> None: ...
def available_isas() -> list[str]: ...
def num_threads() -> int: ...
def set_num_threads(n: int) -> None: ...
