"""Many stored faces: the store, its index, and `facecore.Gallery` over both."""
