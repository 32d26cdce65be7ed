"""What a pod is and shows, and what is done to one."""
