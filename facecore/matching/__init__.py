"""Compare unit vectors and convert similarities to scores."""
