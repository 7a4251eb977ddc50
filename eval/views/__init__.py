"""Views that are scored, however they lie on disk: orbit folders, numbered pictures, strips and videos."""
