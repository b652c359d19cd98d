"""IDS -> IDS -> TEXT: engines behind one step protocol, sampling, the scheduler, text, score."""
