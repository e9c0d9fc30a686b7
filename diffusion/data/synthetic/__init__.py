"""Examples that are generated or bundled: points, dead leaves, crops of a texture, handwritten digits."""
