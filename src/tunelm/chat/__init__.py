"""Conversations with a model or a tutor on one: kept, found again, rated, and set side by side."""
