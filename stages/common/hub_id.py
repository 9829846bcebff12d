"""The id of a repo on the Hugging Face Hub, as users write it in params.yaml: `owner/name`, or the page's address."""

import re
from typing import Annotated

from pydantic import AfterValidator

# What follows an id in addresses.
PAGES = {"tree", "blob", "raw", "resolve", "blame", "edit", "upload", "commit", "commits", "viewer", "discussions"}


def read_id(text: str) -> str:
    """Return the id of a repo from an id or a pasted address.

    Raises:
        ValueError: the text is blank or not a valid id.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    found = re.fullmatch(r"(?:https?://[^/]+|hf\.co|huggingface\.co)/(?:(?:datasets|models)/)?([^?#]*).*", text.strip())
    if found:
        owner, _, rest = found[1].strip("/").partition("/")
        name = rest.split("/")[0]
        text = owner if not name or name in PAGES else f"{owner}/{name}"
    text = text.strip()
    if not text or text.split("/")[0] in ("datasets", "models", "spaces"):
        raise ValueError(f"{text!r} has no id of a repo; write owner/name, as on the page of a data set or model")
    try:
        validate_repo_id(text)
    except HFValidationError as error:
        raise ValueError(" ".join(str(error).split())) from None
    return text


HubId = Annotated[str, AfterValidator(read_id)]
