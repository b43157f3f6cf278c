"""Detect anomalies by their distance from clusters, or by an autoencoder's reconstruction error.

`EKMeansDetector` takes any features. The other functions and classes take images and need PyTorch:
``pip install "ekmfast[torch]"``.
"""

from ekmfast.anomaly._reconstruction import anomaly_map, reconstruction_loss
from ekmfast.anomaly.features import EKMeansDetector
from ekmfast.anomaly.images import AutoencoderDetector

__all__ = ["AutoencoderDetector", "EKMeansDetector", "anomaly_map", "reconstruction_loss"]
