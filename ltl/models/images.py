"""What convolutional networks ask of a data set: images that are large enough for their pooling."""

from collections.abc import Sequence

from ltl.errors import LtlError


def image_shape(input_shape: Sequence[int], *, model: str, halvings: int) -> tuple[int, int, int]:
    """Return (channels, height, width) of the inputs; LtlError if they are no images or too small for `model`.

    `halvings` counts the poolings that halve a side (an odd one downwards), which asks for sides of 2^halvings pixels.
    """
    if len(input_shape) != 3:
        raise LtlError(
            f"model: {model} needs images (channels, height, width), this dataset's inputs are {tuple(input_shape)}: "
            "choose model=lenet_300_100 or another dataset."
        )
    channels, height, width = input_shape
    if min(height, width) < 2**halvings:
        raise LtlError(
            f"model: {model} halves its images {halvings} times and needs {2**halvings}x{2**halvings} pixels or more, "
            f"this dataset's are {height}x{width}: choose a model that pools less (conv2, resnet20) or another dataset."
        )
    return channels, height, width
