"""A gallery in a folder on this machine: an SQLite database, and an index that follows it."""
