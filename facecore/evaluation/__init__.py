"""Error rates, and the published test sets they are measured on (extra ``evaluation``)."""

from facecore._utils.extras import require_extra

require_extra("scipy")  # missed now, and not after all pictures of a test set were embedded
