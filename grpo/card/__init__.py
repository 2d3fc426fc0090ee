"""The regression card of a run: what training changed on everything that can be measured here, one verdict a row."""
