"""Error rates, and the published test sets they are measured on (extra ``evaluation``)."""
