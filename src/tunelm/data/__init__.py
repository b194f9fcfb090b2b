"""Rows on disk to sealed parts: read, dedupe, split, and a ledger of what became of each."""
