"""From two unit vectors to a score."""
