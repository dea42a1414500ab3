"""Many stored faces, and finding one among them."""
