"""Scores of single rows, and what a whole test set can and cannot show.

`metrics` turns one output into numbers that add up over rows; `statistics` turns those
numbers into intervals, tests and verdicts, always by group. Import from the modules.
"""
