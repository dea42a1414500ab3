"""Face processing: detection, alignment, embedding, quality and liveness."""
