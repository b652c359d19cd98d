"""CHECKPOINT <-> BYTES: one module a format, each with sniff, read and write. `registry` knows them all."""
