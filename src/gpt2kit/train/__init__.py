"""BATCHES + NETWORK -> SNAPSHOTS: one loop; optimizer, schedule, snapshot, curve."""
