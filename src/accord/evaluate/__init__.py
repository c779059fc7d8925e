"""Figures that can be trusted, and the report that shows them: pure numpy, no torch."""
