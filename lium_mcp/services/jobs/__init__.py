"""Work on pods: runs from the rent to the end, jobs, what follows them, and removal when idle."""
