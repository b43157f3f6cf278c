"""EKMeans of Dask arrays and dataframes, for data that do not fit on one machine.

Every estimator takes Dask collections. The one of this module can also be converted to a model that
does not need Dask.

>>> import dask.array as da
>>> import numpy as np
>>> from ekmfast.dask import EKMeans
>>> rng = np.random.default_rng(0)
>>> X = np.vstack([rng.normal(0, 1, (2000, 2)), rng.normal(7, 1, (40, 2))])
>>> model = EKMeans(2, random_state=0).fit(da.from_array(X, chunks=(500, 2)))
>>> sorted(np.bincount(model.predict(X)).tolist())
[40, 2000]
"""

from __future__ import annotations

from sklearn.utils.validation import check_is_fitted

from ekmfast.estimators.ekmeans import EKMeans as LocalEKMeans

try:
    import dask  # noqa: F401 - so that the error comes at import, not during a fit
except ImportError:
    raise ImportError('ekmfast.dask needs dask: pip install "ekmfast[dask]"') from None

__all__ = ["EKMeans"]


class EKMeans(LocalEKMeans):
    """EKMeans of Dask arrays and dataframes.

    Parameters, attributes and defaults are those of :class:`ekmfast.EKMeans`. With the same
    ``init`` and ``alpha``, the result equals that of the same rows in memory up to rounding. It
    equals that of :func:`ekmfast.blocks.from_arrays` to the bit if the blocks are the same. It
    depends on the blocks (Dask's chunks of rows), but not on the workers.

    If a distributed client is active, its cluster computes; otherwise Dask's own threads do.

    - Every pass reads ``X``: call ``X.persist()`` if the cluster has enough memory. Otherwise the
      blocks should come from files and not from an array in the client's memory, which would be
      sent to the workers in each pass. A fit takes about a hundred passes; chunks of 16 to 256 MB
      are suitable.
    - If a worker dies, its blocks are loaded again by other workers. In case the client dies, use
      ``fit(..., checkpoint=path)``.
    - ``n_threads`` is the number of threads of each task, 1 by default, since a cluster runs as
      many tasks at a time as it has threads.
    - ``predict``, ``transform``, ``membership`` and ``weights`` of Dask collections return lazy
      Dask arrays, and ``fit`` does not set ``labels_``. ``score`` returns a number.

    Examples
    --------
    >>> import dask.array as da
    >>> import numpy as np
    >>> from ekmfast.dask import EKMeans
    >>> X = da.random.default_rng(0).normal(size=(4000, 3), chunks=(1000, 3))
    >>> EKMeans(2, random_state=0, alpha="dvariance").fit(X).predict(X)
    dask.array<_map, shape=(4000,), dtype=int32, chunksize=(1000,), chunktype=numpy.ndarray>
    """

    def to_local(self) -> LocalEKMeans:
        """The fitted model as :class:`ekmfast.EKMeans`, for example for ``save``.

        Returns
        -------
        model : ekmfast.EKMeans
        """
        check_is_fitted(self)
        model = LocalEKMeans(**self.get_params(deep=False))
        for name, value in vars(self).items():
            if name.endswith("_"):
                setattr(model, name, value)
        return model
