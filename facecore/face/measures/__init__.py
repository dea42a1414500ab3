"""Quality measures of one face, each a raw value and its map to 0–100 where 100 is best.

Named after ISO/IEC 29794-5.  Where OFIQ, the open-source implementation of that standard
(BSI-OFIQ/OFIQ-Project, MIT), has a formula without a trained model, that formula is taken and
every departure from it is said; where OFIQ needs a model, the measure here is another one.
None of this claims conformance.
"""

from facecore.face.measures.scales import MEASURES, Measure

__all__ = ["MEASURES", "Measure"]
