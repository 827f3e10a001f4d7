"""The drift detector: KServe's payload logger -> windows per model version -> looks, alarms, metrics."""
