"""DOCUMENTS -> BATCHES: reading texts, encoding them, drawing windows."""
