"""Save estimators and detectors to files without pickle, and load them."""
