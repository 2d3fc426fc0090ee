"""Parts of `mkdocs build`: pages made from the code, and the check that pages name only what exists."""
