"""Quality measures of one face: raw values, mapped to scores of 0–100 where 100 is best.

The names follow ISO/IEC 29794-5.  The formulas follow OFIQ, the open-source implementation of
that standard (BSI-OFIQ/OFIQ-Project, MIT), except where noted.  Measures for which OFIQ needs a
trained model are replaced by others.  The module does not claim conformance.
"""

from facecore.face.measures.scales import MEASURES, Measure

__all__ = ["MEASURES", "Measure"]
