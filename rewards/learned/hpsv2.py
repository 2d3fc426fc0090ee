"""`hpsv2`: Human Preference Score v2.1, which of a prompt's images people choose. Through open_clip."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image

from blip3o_grpo.rewards.clip.model import ClipModel
from blip3o_grpo.rewards.images import as_rgb
from blip3o_grpo.rewards.learned.weights import find_file
from blip3o_grpo.rewards.types import RewardBatch

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = "xswu/HPSv2"
FILE = "HPS_v2.1_compressed.pt"
_PLACE = "hpsv2: weights"


class HPSv2:
    """Cosine of prompt and image in a CLIP ViT-H/14 that was fine-tuned on people's choices, in [-1, 1].

    Wu et al. 2023, https://arxiv.org/abs/2306.09341; as `hpsv2.score` of https://github.com/tgxs002/HPSv2 gives it. The
    published tables show 100 times that. Scores of v2.0 (give its file as `weights`) and v2.1 do not compare.

    Args:
        weights: a file, or `ORG/NAME` on the hub that holds `HPS_v2.1_compressed.pt`, in the local cache.
        model: open_clip's name of the architecture.
        device: `cpu`, `cuda` or `cuda:N`.
        dtype: `float32` or `bfloat16`.

    Raises:
        RewardError: weights that are not on this machine or do not fit, or as `ClipModel`.
    """

    def __init__(
        self, weights: str = WEIGHTS, model: str = "ViT-H-14", device: str = "cpu", dtype: str = "float32"
    ) -> None:
        self._clip = ClipModel(model, str(find_file(weights, FILE, _PLACE)), device, dtype)

    @staticmethod
    def check_options(
        weights: str = WEIGHTS, model: str = "ViT-H-14", device: str = "cpu", dtype: str = "float32"
    ) -> None:
        """Check option values and that the weights are there, without loading them; raises RewardError."""
        ClipModel.check_options(model, str(find_file(weights, FILE, _PLACE)), device, dtype)

    def __call__(self, batch: RewardBatch) -> list[float | None]:
        """One cosine per image; a prompt beyond 77 tokens is cut off."""
        if not len(batch):
            return []
        side = self._clip.image_side
        images = [as_rgb(image) for image in batch.images]
        return self._clip.cosines(images, batch.prompts, lambda image: whole_picture(image, side)).tolist()


def whole_picture(image: Image.Image, side: int) -> Tensor:
    """What HPSv2 sees of an image: all of it, its longer side scaled to `side`, black beside the shorter one.

    As the authors' preprocessing does, the values are scaled as floats (PIL would round them to 8 bits), and smoothed
    when they are scaled down, which is torchvision's default since 0.17; older ones, of the paper's time, did not.

    Args:
        image: RGB.
        side: px.

    Returns:
        `[3, side, side]`, normalised with CLIP's mean and deviation.
    """
    from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import functional as transforms

    scale = side / max(image.size)
    width, height = (max(1, round(length * scale)) for length in image.size)
    pixels = transforms.to_tensor(image)
    if (width, height) != image.size:
        pixels = transforms.resize(pixels, [height, width], InterpolationMode.BICUBIC, antialias=True)
    left, top = (side - width) // 2, (side - height) // 2
    pixels = transforms.pad(pixels, [left, top, side - width - left, side - height - top])
    return transforms.normalize(pixels, OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)
