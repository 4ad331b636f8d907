"""Recordings: results written to folders and bags, ahead of and behind the engine."""
