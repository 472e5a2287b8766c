"""Evaluation of labelled tasks: measures, intervals, calibration, thresholds, baselines, verdict and report."""
