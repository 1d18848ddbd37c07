"""Tandem's Python steps: data preparation before training, the report and the export check after it."""
