"""The command line: `main` reads it, `parser` says what it understands, and each command has a file of its name."""
