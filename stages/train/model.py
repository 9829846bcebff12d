"""Build the model that is trained: the base model with a new classification head."""

from pathlib import Path

from torch.optim import Optimizer
from transformers import PreTrainedModel

from stages.common.architectures import DROPOUTS, HEAD, freeze_part, set_dropout
from stages.common.classifier import load_classifier
from stages.common.configs import load_config
from stages.common.errors import UserError
from stages.train.params import TrainParams


def build_model(base: Path, labels: list[str], params: TrainParams) -> PreTrainedModel:
    """Load the base model, float32, with a new head and the label names in its config.

    Raises:
        UserError: the architecture does not have what params ask for, or weights are missing.
    """
    config = load_config(base)
    config.id2label, config.label2id = dict(enumerate(labels)), {label: i for i, label in enumerate(labels)}
    # The base model's own task may have left a sigmoid for pipeline(), or other outputs than evaluate expects.
    config.problem_type, config.return_dict = None, True
    vars(config).pop("answer", None)  # of a base model that publish wrote
    config.output_hidden_states = config.output_attentions = False
    for key in DROPOUTS:
        set_dropout(config, key, getattr(params, key))
    if params.spec_augment:
        config.update(params.spec_augment.model_dump() | {"apply_spec_augment": True})
    model = load_classifier(base, config, new_head=True)
    if params.spec_augment and not hasattr(model.base_model, "_mask_hidden_states"):
        raise UserError(f"a {config.model_type} model does not use it; set it to null", key="train.spec_augment")
    if params.freeze != "none":
        freeze_part(model, params.freeze)
    return model


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
