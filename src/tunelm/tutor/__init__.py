"""Dialogues that teach: their records, the strategies of teachers, and simulated students."""
