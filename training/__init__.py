"""Datasets, weak supervision, training, evaluation and reports.

Runs offline on a workstation; the package that drives (`sfi_ros`) never imports it.
"""
