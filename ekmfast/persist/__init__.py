"""Save estimators and detectors to files without pickle, load them, and export them to ONNX."""
