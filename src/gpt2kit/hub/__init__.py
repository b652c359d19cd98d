"""NAMES -> FILES: the catalogue of known models, and downloads that resume and are verified."""
