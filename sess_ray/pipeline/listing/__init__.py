"""Inputs listed into a manifest."""
