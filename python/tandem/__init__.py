"""Tandem's Python steps: data preparation before training, report and export check after it."""
