"""Published results, transcribed a second time from their sources, and that they add up."""

import numpy as np
import pytest

from blip3o_grpo.rewards.geneval.published import PUBLISHED

ROWS = [
    ("FLUX.1-dev", "98 93 75 93 68 65", "82", True, "https://arxiv.org/abs/2505.14683"),
    ("MetaQueries XL", "", "80", True, "https://arxiv.org/abs/2504.06256"),
    ("BAGEL", "98 95 84 95 78 77", "88", True, "https://arxiv.org/abs/2505.14683"),
    ("BLIP3o 8B", "", "84", False, "https://arxiv.org/abs/2505.09568"),
    ("BLIP3o-NEXT 3B, before GRPO", "", "82", False, "the authors' slides"),
    ("BLIP3o-NEXT 3B, after GRPO", "99 95 88 90 92 79", "91", False, "https://arxiv.org/abs/2510.15857"),
]
COLUMNS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")


@pytest.mark.parametrize(("row", "published"), list(zip(ROWS, PUBLISHED, strict=True)), ids=lambda row: row[0]
                         if isinstance(row, tuple) else "")  # fmt: skip
def test_each_row_is_as_its_source_has_it(row, published):
    model, tags, overall, rewritten, source = row
    assert (published.model, published.rewritten, published.source) == (model, rewritten, source)
    assert published.overall == pytest.approx(int(overall) / 100)
    assert published.tags == pytest.approx(
        {name: int(percent) / 100 for name, percent in zip(COLUMNS, tags.split(), strict=bool(tags))}
    )


def test_published_overall_scores_are_the_means_of_their_tags():
    """Where all of them are known; the published ones are rounded twice."""
    for row in PUBLISHED:
        if row.tags:
            assert np.mean(list(row.tags.values())) == pytest.approx(row.overall, abs=0.0101), row.model
