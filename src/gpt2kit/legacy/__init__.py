"""The old programs: their names, parameters, defaults and console lines, on the jobs of today."""
