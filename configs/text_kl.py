"""The section `trainer.text_kl`: hold the policy's text side where the starting policy has it."""

from __future__ import annotations

from pydantic import Field

from blip3o_grpo.configs.section import Section


class TextKLSection(Section):
    """A KL term on replayed texts against the starting policy, added to the tokens' loss.

    Training on images moves the layers that texts run through too. The term is the mean over texts of KL(start ||
    policy) per token (nats), exact over the vocabulary without image tokens; metric `kl/text`. With `lora` the starting
    policy is the same model without its adapters, else a frozen copy.
    """

    weight: float = Field(gt=0)
    """Factor of the term in the loss."""
    texts: str | None = None
    """File of texts, `.txt` (one a line) or `.jsonl` (`prompt`); None: 240 English sentences that come along."""
    texts_per_step: int = Field(default=16, ge=1, le=1_000_000)
    """Texts of an optimiser step, over all trainer ranks; every pass over the file is a new permutation."""


def check_text_kl(section: TextKLSection | None, learn: tuple[str, ...], trainers: int) -> None:
    """Refuse a term that cannot act, or does not divide over the ranks.

    Args:
        section: `trainer.text_kl` of the run.
        learn: likewise.
        trainers: `cluster.trainers`.

    Raises:
        ValueError: naming the key and what to give instead.
    """
    if section is None:
        return
    if "tokens" not in learn:
        raise ValueError(
            "trainer.text_kl: learn does not name the tokens, so the AR part, which reads texts, stays as it is; "
            "leave it out"
        )
    if section.texts_per_step % trainers:
        above = -(-section.texts_per_step // trainers) * trainers
        raise ValueError(
            f"trainer.text_kl.texts_per_step={section.texts_per_step} does not divide over cluster.trainers="
            f"{trainers}; give {above}"
        )
