"""SESS itself: from pixels to one fused map. No files and no Ray."""
