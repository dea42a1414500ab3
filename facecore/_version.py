"""The version of facecore, importable from every floor."""

__all__ = ["__version__"]

__version__ = "0.1.0"
