"""Figures that can be trusted, and the report that shows them: pure functions of arrays, no torch."""
