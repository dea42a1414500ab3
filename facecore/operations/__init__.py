"""The documented operations: requests in, responses out."""
