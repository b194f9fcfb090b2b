"""Judges of a teacher's replies: learned from people's labels, or asked of a language model."""
