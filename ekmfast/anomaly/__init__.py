"""Tell anomalies: by their place among clusters, by how badly an autoencoder reconstructs them.

`EKMeansDetector` takes any features. The others work on images and need PyTorch:
``pip install "ekmfast[torch]"``.
"""

from ekmfast.anomaly._reconstruction import anomaly_map, reconstruction_loss
from ekmfast.anomaly.features import EKMeansDetector
from ekmfast.anomaly.images import AutoencoderDetector

__all__ = ["AutoencoderDetector", "EKMeansDetector", "anomaly_map", "reconstruction_loss"]
