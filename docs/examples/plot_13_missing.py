"""
Rows that lack some features
============================

``missing="partial"`` clusters rows with missing numbers as they are: distances are over the
features that a row has.
"""

# %%
# The wines of scikit-learn have thirteen features and three classes. More and more numbers are
# taken away at random.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_wine
from sklearn.impute import SimpleImputer
from sklearn.metrics import adjusted_rand_score
from sklearn.preprocessing import StandardScaler

from ekmfast import EKMeans

X, y = load_wine(return_X_y=True)
X = StandardScaler().fit_transform(X)
shares = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
partial, filled = np.zeros((2, len(shares), 5))
for i, share in enumerate(shares):
    for seed in range(5):
        gone = np.random.default_rng(seed).random(X.shape) < share
        some = np.where(gone, np.nan, X)
        some[np.isnan(some).all(axis=1), 0] = 0.0  # every row must have a number
        model = EKMeans(3, missing="partial", random_state=0)
        partial[i, seed] = adjusted_rand_score(y, model.fit_predict(some))
        means = SimpleImputer().fit_transform(some)
        filled[i, seed] = adjusted_rand_score(y, EKMeans(3, random_state=0).fit_predict(means))

# %%
# The agreement with the classes, beside that of rows that were filled with the means of the
# features; the mean of five draws.

figure, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
ax.plot(shares, partial.mean(axis=1), marker="o", label='missing="partial"')
ax.plot(shares, filled.mean(axis=1), marker="s", label="filled with means")
ax.set_xlabel("share of missing numbers")
ax.set_ylabel("adjusted Rand index")
ax.set_ylim(0, 1)
ax.legend()
plt.show()

# %%
# With few features filled rows are better: a row with one of two features says too little of which
# cluster it is in.
