"""NAMES -> FILES: the catalogue of known models."""
