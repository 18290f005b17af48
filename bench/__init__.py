"""Measures the cost of dynemo-run against the same library without it.

`python -m bench`, or `make bench`.

Each row compares two things alternately in one run (ours, peer, peer, ours, ...). So a change of
the machine's speed affects both. Numbers are medians.
"""
