"""Tickets from the state dict of a network that torch.nn.utils.prune has masked, read without running anything."""

import pickle
import zipfile
from pathlib import Path

import torch

from ltl.errors import LtlError
from ltl.masks import Masks, Tensors, density, mask_sha256
from ltl.tickets import Ticket


def read(path: Path) -> Ticket:
    """Return the ticket in the torch.save file at `path`, with `*.weight_orig` as its weights and `*.weight_mask`.

    A state dict, or a checkpoint that holds one as `state_dict`. LtlError for any other content.
    """
    content = _state_dict(path)
    pruned = [key.removesuffix("_orig") for key in content if key.endswith("_orig")]
    replaced = {f"{name}{suffix}" for name in pruned for suffix in ("", "_orig", "_mask")}
    state = {key: value for key, value in content.items() if key not in replaced}
    masks: Masks = {}
    for name in pruned:
        value, mask = content[f"{name}_orig"], content.get(f"{name}_mask")
        if name in content:
            raise LtlError(f"{path} holds {name!r} twice, pruned and not: it cannot be told which one counts.")
        if mask is None or mask.shape != value.shape or not ((mask == 0) | (mask == 1)).all():
            raise LtlError(f"{path} has {name + '_orig'!r} but no {name + '_mask'!r} of its shape with only 0 and 1.")
        state[name] = value
        if name.rpartition(".")[2] == "weight" and value.ndim >= 2 and value.is_floating_point():
            masks[name] = mask.bool()
        elif not mask.all():
            raise LtlError(f"{path} prunes {name!r}; a ticket masks weights of linear and convolution layers only.")
    if not masks:
        raise LtlError(
            f"{path} has no *.weight_orig with its *.weight_mask (its keys: {', '.join(list(content)[:4])} …); "
            "save the state dict before torch.nn.utils.prune.remove."
        )
    metadata = {"source": "torch.nn.utils.prune"}
    metadata |= {"density": repr(density(masks)), "mask_sha256": mask_sha256(masks)}
    return Ticket(masks=masks, state=state, metadata=metadata, gains={}, fills={})


def _state_dict(path: Path) -> Tensors:
    try:
        if zipfile.is_zipfile(path):  # torch.load does not compare the checksums in it
            with zipfile.ZipFile(path) as archive:
                if torn := archive.testzip():
                    raise zipfile.BadZipFile(f"the checksum of {torn} does not match")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except pickle.UnpicklingError:
        raise LtlError(
            f"{path} is refused: it is no torch.save file, or it holds objects that could run code when loaded "
            "(nothing was run); give a file written by torch.save(network.state_dict(), …)."
        ) from None
    except Exception as error:  # torch.load documents none: broken archives raise what they like
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise LtlError(f"{path} is not a whole torch.save file: {reason}") from None
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise LtlError(f"{path} holds no state dict but a {type(content).__name__}: save network.state_dict().")
    for name, value in content.items():
        if not isinstance(value, torch.Tensor) or value.layout != torch.strided or value.device.type != "cpu":
            raise LtlError(f"{path} holds {name!r}, which is no dense tensor: save network.state_dict().")
    return content
