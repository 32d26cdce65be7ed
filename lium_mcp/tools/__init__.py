"""What agents see: one file per toolset, each tool a declaration and a short body."""
