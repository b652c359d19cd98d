"""One file a command; `main` finds it, `terminal` draws what it reports."""
