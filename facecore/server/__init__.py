"""The documented operations over HTTP, on the device (extra ``serve``)."""
