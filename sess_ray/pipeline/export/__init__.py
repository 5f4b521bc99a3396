"""Runs as datasets that other tools open: FiftyOne's, Hugging Face's, WebDataset's."""
