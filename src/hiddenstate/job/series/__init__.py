"""Signals: forecasts of many steps and channels, and the next frame of binary channels."""
