"""The transformers classes that travel inside every export of Tandem. They need torch and transformers only."""
