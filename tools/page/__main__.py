"""Open a web page to try the model on recordings, listen to clips of the data set, and look at the worst errors.

Only programs on this machine can reach it, unless --host says otherwise. Nothing is sent to the internet. An uploaded
recording is deleted when its result is shown.

Run     python -m tools.page, or make demo
        python -m tools.page --model you/name --window 5
"""

import os
import signal
import sys
import tempfile
from argparse import Namespace
from pathlib import Path

from stages.common.errors import UserError
from stages.common.paths import PUBLISHED
from stages.common.stage import command_parser, run_command


def read_options() -> Namespace:
    """Read the command line."""
    parser = command_parser("tools.page", __doc__)
    add = parser.add_argument
    add("--model", default=str(PUBLISHED), help="folder, ONNX file, or id on the Hub; default: %(default)s")
    add("--window", type=float, metavar="SECONDS", help="of the timeline; default: as in training, or 3")
    add("--host", default="127.0.0.1", help="address to listen on; there is no password; default: %(default)s")
    add("--port", type=int, default=7860, help="0: any free one; default: %(default)s")
    return parser.parse_args()


def main() -> None:
    """Serve the page until Ctrl-C."""
    options = read_options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the folder of uploads is removed
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
    with tempfile.TemporaryDirectory(prefix="page-") as uploads:
        os.environ["GRADIO_TEMP_DIR"] = str(Path(uploads).resolve())
        from stages.common.device import find_device  # noqa: F401  # before anything else imports torch

        # isort: split
        try:
            import gradio  # noqa: F401
        except ImportError:
            raise UserError("gradio is not installed; run make demo, or pip install -e '.[demo]'") from None
        from tools.classify.find import find_configs, find_model
        from tools.classify.model import load_model
        from tools.page.answers import Answers
        from tools.page.data import DataSet
        from tools.page.server import is_loopback, serve
        from tools.page.tabs import build_page

        model = find_model(options.model)
        answers = Answers(load_model(model, "fp32"), find_configs(model), options.window)
        page = build_page(answers, DataSet.read(), options.model)
        if not is_loopback(options.host):
            print(f"warning: everyone who can reach {options.host} can use the page", file=sys.stderr)
        serve(page, options.host, options.port)


if __name__ == "__main__":
    run_command(main)
