"""The training room: datasets, weak supervision, metrics, training, evaluation and reports.

Runs offline on a workstation; the package that drives (`sfi_ros`) never imports it.
"""
