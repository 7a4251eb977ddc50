"""What is drawn: a loaded object as triangles, textures and lights, and the two renderers that draw it."""
