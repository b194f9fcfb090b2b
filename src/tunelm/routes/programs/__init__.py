"""Prompt programs: what they hold, and how DSPy finds them."""
