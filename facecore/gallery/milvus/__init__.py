"""A gallery on a Milvus server, or in a milvus-lite file."""
