"""The documented operations over HTTP, on the device (extra ``serve``)."""

from facecore._utils.extras import require_extra

for _module in ("starlette", "uvicorn"):
    require_extra(_module, "serve")
