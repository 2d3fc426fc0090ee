"""What a judge is asked about a WISE image, in this project's own words: the official ones have no licence."""

from __future__ import annotations

LEGACY = """\
You judge how well an image answers a request that needs knowledge of the world. Be strict: where in doubt, choose the \
lower number.

Request: {prompt}
What a right image shows: {explanation}

Give three whole numbers, each 0, 1 or 2.
Consistency: does the image show what the request means, as explained? 0: it misses or contradicts it. 1: in part. 2: \
completely, in every detail.
Realism: are objects, materials, light and physics believable? 0: clearly artificial or impossible. 1: with visible \
flaws. 2: like a photograph.
Aesthetic Quality: composition, colour and craft. 0: poor. 1: acceptable. 2: outstanding.

Answer with exactly these three lines, each with its number, and nothing else:
Consistency: 0
Realism: 0
Aesthetic Quality: 0"""

VERIFIED = """\
You judge whether an image answers a request that needs knowledge of the world. Be strict.

Request: {prompt}
What a right image shows: {explanation}

Answer with exactly one digit and nothing else: 1 if the image clearly shows what the request means, as explained; 0 \
if it misses, contradicts or only partly shows it."""
