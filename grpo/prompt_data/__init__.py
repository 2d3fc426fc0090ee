"""Training prompts made from templates and word lists, and the check that none of them is in a test file."""
