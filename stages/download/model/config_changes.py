"""Replace keys of a checkpoint's config.json, and check that the weights fit the changed one."""

import json
from pathlib import Path
from typing import Any

from stages.common.errors import UserError

KEY = "download.model.config"
# What describes the class that the checkpoint came from, or code that is never run.
DROPPED = ("architectures", "auto_map")
# Only models that mask their input in training have it.
OPTIONAL = "masked_spec_embed"


def change_config(folder: Path, changes: dict[str, Any]) -> None:
    """Write changed keys into config.json; no changes leave it as it is.

    Raises:
        UserError: config.json is not JSON.
    """
    if not changes:
        return
    path = folder / "config.json"
    try:
        content = {key: value for key, value in json.loads(path.read_bytes()).items() if key not in DROPPED}
    except (OSError, ValueError, AttributeError) as error:
        message = f"config.json cannot be read: {' '.join(str(error).split())}"
        raise UserError(message, key="download.model") from None
    path.write_text(json.dumps(content | changes, indent=2) + "\n", encoding="utf-8")


def require_fit(folder: Path, changes: dict[str, Any]) -> None:
    """Check that the base model of a changed checkpoint uses all weights, and lacks none.

    Raises:
        UserError: a weight is not used, missing or of another shape, or the architecture has no such key.
    """
    from transformers import AutoConfig, AutoModel
    from transformers.utils import logging

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    if unknown := sorted(set(changes) - set(type(config)().to_dict())):
        raise UserError(f"a {config.model_type} config has no such key", key=f"{KEY}.{unknown[0]}")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        model, loaded = AutoModel.from_pretrained(
            folder, config=config, ignore_mismatched_sizes=True, output_loading_info=True, trust_remote_code=False
        )
    except (OSError, ValueError, RuntimeError, TypeError, AttributeError, LookupError) as error:
        raise UserError(f"no model can be made of it: {' '.join(str(error).split())[:300]}", key=KEY) from None
    parts = {name.partition(".")[0] for name in model.state_dict()}
    prefix = f"{model.base_model_prefix}."  # in checkpoints with a head, whose weights are never used
    unused = {key for key in loaded["unexpected_keys"] if key.removeprefix(prefix).partition(".")[0] in parts}
    kinds = {
        "missing from the checkpoint": loaded["missing_keys"],
        "not used": unused,
        "of another shape": {key for key, *_ in loaded["mismatched_keys"]},
    }
    for kind, keys in kinds.items():
        if found := sorted(key for key in keys if not key.endswith(OPTIONAL)):
            message = f"with it, {len(found)} weights are {kind} (first: {found[0]}); correct it or remove it"
            raise UserError(message, key=KEY)
