"""Retrieval: a corpus cut into passages, and the ways to find the ones a question is about."""
