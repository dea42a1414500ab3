"""Model packs: what they state, where they are, and the ONNX Runtime sessions they run in.

Nothing here loads ONNX Runtime or touches the network before it is asked to.
"""
