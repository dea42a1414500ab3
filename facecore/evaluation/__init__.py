"""Error rates and evaluation protocols for published test sets (extra ``evaluation``)."""

from facecore._utils.extras import require_extra

require_extra("scipy")  # fail on import, not after embedding a whole test set
