"""Adapt a language model every way there is, and learn which way to ship."""
