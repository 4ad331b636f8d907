"""Measurements, as scripts: each prints a table, writes JSON and compares with a saved JSON."""
