"""Scaling laws: formulas, fits, uncertainty, optima, forecasts. Imports no torch."""
