"""What rollouts and trainer ask of a policy, and the two policies that answer (`docs/own-model.md`).

A kind is asked by its name in a recipe, `policy.type`; libraries and weights load in its methods only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from blip3o_grpo.policies.blip3o_next.config import MODEL_TYPES, resolve_policy_path
from blip3o_grpo.policies.blip3o_next.json_files import CheckpointError, read_json

if TYPE_CHECKING:
    import torch

    from blip3o_grpo.policies.blip3o_next.prompt_encoder import PromptEncoder

Role = Literal["reader", "painter", "head", "whole"]
"""Parts of a policy: the AR part; all that paints a picture; the diffusion head; all that a checkpoint holds."""


class PolicyKind(ABC):
    """A policy's class, as everything outside `policies/` knows it.

    Attributes:
        samples_tokens: whether its AR part draws tokens, which takes samplers and lets tokens learn.
    """

    samples_tokens: bool

    @abstractmethod
    def check_headers(self, path: str | Path) -> Path:
        """Check configs and headers of the weights without torch; returns the folder, or raises CheckpointError."""

    @abstractmethod
    def check(self, path: Path) -> None:
        """Check every tensor's shape without reading one, or raise CheckpointError."""

    @abstractmethod
    def prompts(self, path: Path, *, plain: bool = False) -> PromptEncoder:
        """Its prompt format; `plain`: without transformers."""

    @abstractmethod
    def image_side(self, folder: Path) -> int:
        """Side of its square pictures in px."""

    @abstractmethod
    def shapes(self, path: Path) -> Any:
        """The policy on the meta device: AR part and head."""

    @abstractmethod
    def load(self, path: Path, role: Role, *, dtype: torch.dtype | None = None, device: Any = "cpu") -> Any:
        """The policy with the parts of a role; `dtype` None: float32."""


class BLIP3oNextKind(PolicyKind):
    """BLIP3o-NEXT: image tokens, painted by SANA."""

    samples_tokens = True

    def check_headers(self, path: str | Path) -> Path:
        """See `PolicyKind`."""
        from blip3o_grpo.policies.blip3o_next.headers import check_headers

        return check_headers(path)

    def check(self, path: Path) -> None:
        """See `PolicyKind`."""
        from blip3o_grpo.policies.blip3o_next.policy import BLIP3oNext

        BLIP3oNext.check(path)

    def prompts(self, path: Path, *, plain: bool = False) -> PromptEncoder:
        """See `PolicyKind`."""
        from blip3o_grpo.policies.blip3o_next.prompt_encoder import PromptEncoder

        return PromptEncoder.from_pretrained(path, plain=plain)

    def image_side(self, folder: Path) -> int:
        """See `PolicyKind`."""
        from blip3o_grpo.policies.blip3o_next.headers import image_side

        return image_side(folder)

    def shapes(self, path: Path) -> Any:
        """See `PolicyKind`."""
        from blip3o_grpo.policies.blip3o_next.policy import BLIP3oNext

        return BLIP3oNext.shapes(path)

    def load(self, path: Path, role: Role, *, dtype: torch.dtype | None = None, device: Any = "cpu") -> Any:
        """See `PolicyKind`."""
        import torch

        from blip3o_grpo.policies.blip3o_next.checkpoint import Weights, stored_parts
        from blip3o_grpo.policies.blip3o_next.policy import BLIP3oNext

        folder = resolve_policy_path(path)
        named = {"reader": ("ar",), "painter": ("ar", "head"), "head": ("head",)}
        parts = named[role] if role in named else stored_parts(Weights(folder))
        policy = BLIP3oNext.from_pretrained(folder, dtype=dtype or torch.float32, device=device, parts=parts)
        if role == "head":
            policy.vae = None  # who learns a head needs no pixels
        return policy


class BLIP3oKind(PolicyKind):
    """BLIP3-o: features of an image by flow matching."""

    samples_tokens = False

    def check_headers(self, path: str | Path) -> Path:
        """See `PolicyKind`."""
        from blip3o_grpo.policies.blip3o.config import read_config
        from blip3o_grpo.policies.blip3o_next.checkpoint import Weights

        folder = resolve_policy_path(path)
        read_config(folder)
        Weights(folder)
        return folder

    def check(self, path: Path) -> None:
        """See `PolicyKind`."""
        from blip3o_grpo.policies.blip3o.policy import BLIP3o

        BLIP3o.check(path)

    def prompts(self, path: Path, *, plain: bool = False) -> PromptEncoder:
        """See `PolicyKind`."""
        from blip3o_grpo.policies.blip3o.prompt_encoder import QueryPromptEncoder

        return QueryPromptEncoder.from_pretrained(path, plain=plain)

    def image_side(self, folder: Path) -> int:
        """See `PolicyKind`."""
        from blip3o_grpo.policies.blip3o.config import read_config

        config = read_config(folder)
        stages = config["pixel_decoder"].get("encoder_block_out_channels", [0] * 6)  # each but the last halves
        return config["dit"]["sample_size"] * 2 ** (len(stages) - 1)

    def shapes(self, path: Path) -> Any:
        """See `PolicyKind`."""
        from blip3o_grpo.policies.blip3o.policy import BLIP3o

        return BLIP3o.shapes(path)

    def load(self, path: Path, role: Role, *, dtype: torch.dtype | None = None, device: Any = "cpu") -> Any:
        """See `PolicyKind`."""
        import torch
        from transformers import GenerationConfig

        from blip3o_grpo.policies.blip3o.policy import PARTS, BLIP3o

        parts = {"reader": ("ar",), "head": ("head",)}.get(role, tuple(PARTS))
        policy = BLIP3o.from_pretrained(path, dtype=dtype or torch.float32, device=device, parts=parts)
        if role == "reader":
            policy.ar.generation_config = GenerationConfig()  # TRL notes ids there; a model without a head has none
        return policy


KINDS: dict[str, PolicyKind] = {"blip3o_next": BLIP3oNextKind(), "blip3o": BLIP3oKind()}
"""By `policy.type`."""
OF_MODEL_TYPE = dict.fromkeys(MODEL_TYPES, "blip3o_next") | {"blip3o": "blip3o"}
"""`model_type` in a checkpoint's `config.json` to the kind; all others are nobody's."""


def check_kind(path: str | Path, name: str) -> None:
    """The checkpoint at `path` is of the kind that a recipe names, or of none, which the kind's own checks say.

    Raises:
        CheckpointError: it is of another one, and says which key to change.
    """
    folder = resolve_policy_path(path)
    model_type = read_json(folder / "config.json").get("model_type")
    found = OF_MODEL_TYPE.get(model_type, name) if isinstance(model_type, str) else name
    if found != name:
        raise CheckpointError(
            f"policy.type={name}, but {folder}/config.json is a checkpoint of {found}; give policy.type={found} "
            f"with a recipe for it, or the path of a {name}"
        )
