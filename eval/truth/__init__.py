"""Objects and their true views."""
