"""A result for readers: Markdown, CSV and one self-contained HTML page."""
