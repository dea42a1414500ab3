"""Model packs: their manifests, their locations, and their ONNX Runtime sessions.

Importing these modules neither loads ONNX Runtime nor uses the network.
"""
