"""One function a task. Called by the Python API, the command line and everything else that has work to give."""
