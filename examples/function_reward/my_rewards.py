"""A reward as a plain function, beside the recipe that names it."""


def brightness(images, prompts, metadata, target=0.5):
    """1 where an image's mean brightness is `target` (0 black, 1 white), less the farther it is from it."""
    return [1 - abs(float(image.mean()) / 255 - target) for image in images]
