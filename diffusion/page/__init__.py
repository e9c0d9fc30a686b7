"""The page in the browser: runs as they train, pictures, and jobs, from run folders and nothing else.

Nothing imports it but the command line, and training never depends on it.
"""
