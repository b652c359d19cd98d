"""IDS -> LOGITS: the torch network, mathematics only, and the weights it is made of."""
