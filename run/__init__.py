"""Command lines: parse, one library call, write files, print a table."""
