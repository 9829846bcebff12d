"""Build the model that is trained: the base model with a new classification head."""

from pathlib import Path
from typing import Literal

from torch.optim import Optimizer
from transformers import PreTrainedConfig, PreTrainedModel

from stages.common.architectures import DROPOUTS, HEAD, freeze_part, set_dropout
from stages.common.classifier import load_classifier
from stages.common.configs import load_config
from stages.train.lora import add_lora
from stages.train.params import TrainParams


def build_model(base: Path, labels: list[str], params: TrainParams) -> PreTrainedModel:
    """Load the base model, float32, with a new head and the label names in its config.

    Raises:
        UserError: the architecture does not have what params ask for, or weights are missing.
    """
    config = load_config(base)
    for problem in params.find_unsupported(config.to_dict()):
        raise problem
    config.id2label, config.label2id = dict(enumerate(labels)), {label: i for i, label in enumerate(labels)}
    # The base model's own task may have left a sigmoid for pipeline(), or other outputs than evaluate expects.
    config.problem_type, config.return_dict = None, True
    vars(config).pop("answer", None)  # of a base model that publish wrote
    config.output_hidden_states = config.output_attentions = False
    if params.layers is not None:
        choose_layers(config, params.layers)
    for key in DROPOUTS:
        set_dropout(config, key, getattr(params, key))
    if params.spec_augment:
        config.update(params.spec_augment.model_dump() | {"apply_spec_augment": True})
    model = load_classifier(base, config, new_head=True)
    if params.freeze != "none":
        freeze_part(model, params.freeze)
    if params.lora:
        add_lora(model, params.lora)
    return model


def choose_layers(config: PreTrainedConfig, layers: Literal["last", "weighted"] | int) -> None:
    """Set in a model's config which layers' output the head gets. A number leaves out the layers after it."""
    key = "use_weighted_layer_sum"
    if hasattr(config, key):
        config.update({key: layers == "weighted"})
    if isinstance(layers, int):
        names = [name for name in ("num_hidden_layers", "encoder_layers") if hasattr(config, name)]
        config.update(dict.fromkeys(names, layers))


def set_head_learning_rate(optimizer: Optimizer, model: PreTrainedModel, rate: float) -> None:
    """Give the head a learning rate of its own: each group of weights becomes two, with the weight decay of the group.

    The first groups stay those of the base model, so that the logged learning rate is theirs.
    """
    head = {weight for name, weight in model.named_parameters() if name.startswith(HEAD)}
    others = []
    for group in optimizer.param_groups:
        others.append({**group, "params": [weight for weight in group["params"] if weight in head], "lr": rate})
        group["params"] = [weight for weight in group["params"] if weight not in head]
    for group in others:
        optimizer.add_param_group(group)
