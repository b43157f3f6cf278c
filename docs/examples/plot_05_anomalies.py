"""
Anomalies in a table
====================

``EKMeansDetector`` finds rows that are far from the large clusters, and small clusters of rows that
resemble each other.
"""

# %%
# The breast cancer data of scikit-learn: 30 measurements of tumours. The 357 benign ones are the
# normal case. Of the malignant ones we keep only 18, which the detector shall find without labels.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import IsolationForest
from sklearn.metrics import RocCurveDisplay, roc_auc_score
from sklearn.preprocessing import StandardScaler

from ekmfast.anomaly import EKMeansDetector

X, benign = load_breast_cancer(return_X_y=True)
malignant = np.random.default_rng(0).permutation(np.flatnonzero(benign == 0))[:18]
rows = np.concatenate([np.flatnonzero(benign), malignant])
X, strange = StandardScaler().fit_transform(X[rows]), benign[rows] == 0
print(f"{strange.sum()} of {len(X)} tumours are malignant")

# %%
# ``contamination`` is the share of normal rows that may be called outliers. ``decision_scores_`` of
# the rows of the fit are held out: each row is scored without itself.

detector = EKMeansDetector(contamination=0.05, random_state=0).fit(X)
forest = IsolationForest(random_state=0).fit(X)
scores = {
    "EKMeansDetector": detector.decision_scores_,
    "IsolationForest": -forest.score_samples(X),
}
for name, score in scores.items():
    print(f"{name}: AUC {roc_auc_score(strange, score):.3f}")
found = detector.labels_ == 1
print(f"{found.sum()} rows are called outliers, {(found & strange).sum()} of them rightly")

# %%
# The ROC curve shows the share of the malignant tumours that are found, for each share of false
# alarms. The histogram shows where the threshold lies; its last bar holds all larger scores.

figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
for name, score in scores.items():
    RocCurveDisplay.from_predictions(strange, score, name=name, ax=axes[0])
shown = np.minimum(detector.decision_scores_, 3 * detector.threshold_)
bins = np.linspace(shown.min(), shown.max(), 40)
axes[1].hist([shown[~strange], shown[strange]], bins, stacked=True, label=["benign", "malignant"])
axes[1].set_yscale("log")
axes[1].axvline(detector.threshold_, color="black", linestyle="--", label="threshold")
axes[1].set_xlabel("abnormality (decision_scores_)")
axes[1].legend()
plt.show()

# %%
# One data set says little. On other sets another detector is better: :doc:`/comparison` has 78 of
# them.
