"""EKMeans on dask arrays and dataframes: more data than one machine holds.

Every estimator takes dask collections. The one here can also be made a model that needs no dask.

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
    import dask  # noqa: F401 - said here, not in the midst of a fit
except ImportError:
    raise ImportError('ekmfast.dask needs dask: pip install "ekmfast[dask]"') from None

__all__ = ["EKMeans"]


class EKMeans(LocalEKMeans):
    """EKMeans of dask arrays and dataframes.

    Parameters, attributes and defaults are those of :class:`ekmfast.EKMeans`, and so is the result:
    equal to rounding to that of the same rows in memory, given the same ``init`` and ``alpha``; the
    same bits as those of :func:`ekmfast.blocks.from_arrays` with the same chunks. It depends on the
    chunks, not on the workers.

    Where a distributed client is active its cluster computes; else dask's own threads do.

    - ``X`` is read once a pass: ``X.persist()`` it where the cluster's memory suffices. Else its
      blocks should come from files, not from an array of the client's, which would be sent anew
      each pass. A hundred passes are usual, chunks of 16 to 256 MB fitting.
    - A worker that dies costs time: its blocks are loaded again elsewhere. For a client that dies
      there is ``fit(..., checkpoint=path)``.
    - ``n_threads`` is that of each task, 1 by default: the cluster runs one in each slot.
    - ``predict``, ``transform``, ``membership`` and ``weights`` of dask collections are lazy dask
      arrays; ``fit`` keeps no ``labels_`` of them; ``score`` computes.

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
        """The fitted model as :class:`ekmfast.EKMeans`: for ``save``.

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
