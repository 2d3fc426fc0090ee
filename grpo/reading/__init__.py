"""Suites in which a policy reads and draws nothing: plain texts, questions about pictures."""
