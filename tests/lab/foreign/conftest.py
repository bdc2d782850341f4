"""The project in `project/` has a suite of its own, which is run as its user would run it."""

collect_ignore = ["project"]
