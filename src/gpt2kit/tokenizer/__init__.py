"""TEXT -> IDS: byte-level BPE on tiktoken, the vocabulary files it is read from, and learning a new one."""
