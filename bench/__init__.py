"""What dynemo-run costs, against the same library without it. `python -m bench`, or `make bench`.

Each row compares two things in one run, in turns (ours, peer, peer, ours, ...), so that a machine
that slows down or speeds up in between does so for both. Numbers are medians.
"""
