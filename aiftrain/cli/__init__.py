"""The verbs of the command line, one module a verb or a few. Nothing here is imported before it is needed."""
