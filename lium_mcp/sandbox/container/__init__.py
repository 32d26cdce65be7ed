"""What runs inside a simulated pod: files in memory, processes on the sandbox's clock, and a small shell.

Nothing here touches the machine it runs on: a command is a Python function over this container's own files, and time
is the world's. Nothing here knows SSH or HTTP. See docs/sandbox.md for what the shell understands.
"""
