"""Helpers that know nothing of faces: threads, processors, memory, files, locks."""
