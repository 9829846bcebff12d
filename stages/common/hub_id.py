"""The id of a repo on the Hugging Face Hub, as users write it in params.yaml: `owner/name`, or the page's address."""

import re
from typing import Annotated

from pydantic import AfterValidator

PAGES = {"tree", "blob", "resolve", "viewer", "discussions", "settings", "commits"}  # what follows an id in addresses


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
    if not text:
        raise ValueError("is blank; write owner/name, as on the repo's page")
    try:
        validate_repo_id(text)
    except HFValidationError as error:
        raise ValueError(" ".join(str(error).split())) from None
    return text


HubId = Annotated[str, AfterValidator(read_id)]
