"""From pixels to a unit vector: detection, alignment, embedding."""
