"""The network and the data set that a ticket's metadata names, built by ltl's own code alone: files may be foreign."""

import importlib
import inspect
import json
import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ltl.datasets.dataset import Dataset
from ltl.errors import LtlError
from ltl.models.scaling import scaled
from ltl.rng import generator
from ltl.tickets import Ticket, effective

# What models had before it could be chosen, of tickets from then.
_BEFORE = {"activation": "relu", "batch_norm": False, "bias": True}

_BATCH = 1000  # test examples in one forward pass


class Unavailable(LtlError):
    """What the metadata names cannot be had here, for no fault of the ticket's: predictions are left out."""


class Foreign(LtlError):
    """What the metadata names is not ltl's, or no name at all, and nothing of it is run."""


def outputs(ticket: Ticket, dataset: Dataset) -> Tensor:
    """Return the outputs (n, classes) of the ticket's network, in evaluation mode, on the test examples of `dataset`.

    Unavailable if the model is not named or does not fit; Foreign if the metadata names code that is not ltl's.
    """
    shape, classes = _json(ticket, "input_shape"), _json(ticket, "outputs")
    if shape != list(dataset.input_shape) or classes != dataset.outputs:
        raise Unavailable(
            f"the model maps inputs {shape} to {classes} outputs, and {dataset.name} has inputs "
            f"{list(dataset.input_shape)} and {dataset.outputs} classes; choose other data with --data."
        )
    model = network(ticket, dataset)
    with torch.inference_mode():
        return torch.cat([model(inputs) for inputs in torch.split(dataset.test.inputs, _BATCH)])


def dataset_of(ticket: Ticket) -> Dataset:
    """Return the data set that the ticket was found on, read from where data lies here; nothing is downloaded.

    Unavailable if it is not named or not here; Foreign if the metadata names code that is not ltl's.
    """
    return _dataset(_json(ticket, "dataset"))


def names(ticket: Ticket) -> tuple[object, object]:
    """Return the names of the ticket's model and data set, None where one has none.

    Unavailable if its metadata lacks model or data set.
    """
    model, dataset = (_json(ticket, key) for key in ("model", "dataset"))
    return model.get("name"), dataset.get("name")


def dataset_named(name: str, conf: Path) -> Dataset:
    """Return the data set of `conf`/dataset/`name`.yaml; nothing is downloaded.

    LtlError if there is none of that name, Unavailable if its files are not here.
    """
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    names = sorted(file.stem for file in (conf / "dataset").glob("*.yaml"))
    if name not in names:
        raise LtlError(f"--data={name} is unknown: allowed are {', '.join(names)}, ticket and none.")
    with initialize_config_dir(str(conf), version_base="1.3"):
        # Models' recipes set augmentation, which never touches the test set.
        cfg = compose(f"dataset/{name}", ["dataset.augment=false"])
    return _dataset(OmegaConf.to_container(cfg.dataset, resolve=True))


def _dataset(config: Any) -> Dataset:
    # Where data lies here is not the ticket's to say, so its folder is ours and nothing is downloaded.
    here = {"root": os.environ.get("LTL_DATA_DIR", "data"), "download": False}
    given = {key: value for key, value in config.items() if key not in here} if isinstance(config, dict) else config
    load = _own(given, "datasets")
    taken = inspect.signature(load).parameters
    given |= {key: value for key, value in here.items() if key in taken}
    try:
        dataset: Dataset = _instantiate(given, split_generator=generator("order", 0, "split"))
        return dataset
    except Exception as error:
        raise Unavailable(f"the data set {config.get('name')!r} cannot be read here: {_line(error)}") from None


def network(ticket: Ticket, dataset: Dataset) -> nn.Module:
    """Return the ticket's network with its effective weights, in evaluation mode.

    Unavailable if the model is not named or does not fit; Foreign if the metadata names code that is not ltl's.
    """
    config = _json(ticket, "model")
    _own(config, "models")
    given = {key: value for key, value in config.items() if key not in ("name", "width_factor")} | {"_partial_": True}
    factor = config.get("width_factor", 1)
    state = effective(ticket)
    try:
        with torch.device("meta"):
            model = _instantiate(given)
            before = {key: _BEFORE[key] for key in _BEFORE if key in inspect.signature(model.func).parameters}
            model = partial(model.func, **before | model.keywords)
            model = model if factor == 1 else scaled(model, factor)
            built: nn.Module = model(input_shape=dataset.input_shape, outputs=dataset.outputs)
        # Compared before memory is allocated: a foreign file may ask for any size.
        shapes = {name: tensor.shape for name, tensor in built.state_dict().items()}
        if shapes != {name: tensor.shape for name, tensor in state.items()}:
            raise LtlError("its weights are not those of the model that its metadata names.")
        built = built.to_empty(device="cpu").eval()
        built.load_state_dict(state)
        return built
    except Exception as error:
        raise Unavailable(f"the model of a ticket cannot be built here: {_line(error)}") from None


def _json(ticket: Ticket, key: str) -> Any:
    if key not in ticket.metadata:
        raise Unavailable(f"a ticket's metadata has no {key!r} (imported tickets have none).")
    try:
        return json.loads(ticket.metadata[key])
    except (ValueError, RecursionError):
        raise Foreign(f"a ticket's metadata has a {key!r} that is not valid JSON.") from None


def _own(config: Any, room: Literal["models", "datasets"]) -> Callable[..., Any]:
    """Return what `config` names if that is all it can run: a class of ltl.models or a load_… function of ltl.datasets.

    Hydra would call whatever a `_target_` at any depth names, also through a module's imports (ltl.models.x.os.kill).
    """
    if not isinstance(config, dict):
        raise Foreign(f"a ticket's {room} config is no mapping.")
    target = config.get("_target_")
    path = re.fullmatch(rf"(ltl\.{room}\.[a-z]\w*)\.([A-Za-z]\w*)", target) if isinstance(target, str) else None
    reserved = sorted(key for key in _keys(config) if key.startswith("_"))
    if not path or reserved not in (["_target_"], ["_partial_", "_target_"]):
        raise Foreign(_refusal(target, room))
    if "${" in json.dumps(config):
        raise Foreign(f"a ticket's {room} config holds an interpolation ${{…}}, which is refused.")
    try:
        found = getattr(importlib.import_module(path[1]), path[2])
    except (ImportError, AttributeError):
        raise Unavailable(f"this ltl has no {target!r}.") from None
    wanted = (
        inspect.isclass(found) and issubclass(found, nn.Module) if room == "models" else path[2].startswith("load_")
    )
    if not wanted or found.__module__ != path[1]:
        raise Foreign(_refusal(target, room))
    called: Callable[..., Any] = found
    return called


def _refusal(target: Any, room: str) -> str:
    return f"a ticket's metadata names code {target!r} that is not one of ltl.{room}: other code is not run."


def _keys(config: Any) -> list[str]:
    if isinstance(config, dict):
        return [*map(str, config), *(key for value in config.values() for key in _keys(value))]
    return [key for value in config for key in _keys(value)] if isinstance(config, list) else []


def _instantiate(config: dict[str, Any], **arguments: Any) -> Any:
    from hydra.utils import instantiate

    return instantiate(config, **arguments)


def _line(error: Exception) -> str:
    return " ".join(str(error.__cause__ or error).split()) or type(error).__name__
