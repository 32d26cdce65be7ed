"""What `lium-mcp doctor` looks at, a file per area: each finds what is well, and what is wrong with its cure."""
