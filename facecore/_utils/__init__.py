"""General helpers: threads, processors, memory, files, locks."""
