"""The transformers classes that travel inside every export. They need torch and transformers."""
