"""The Ray Data graphs, their actors and their settings. Everything that imports ray is in here."""
