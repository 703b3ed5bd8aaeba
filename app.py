"""What Spaces and `python app.py` start: settings, page, launch."""

from __future__ import annotations

import os
import sys

from ovseg_demo.errors import OvsegError
from ovseg_demo.page.server.gradio_import import import_gradio
from ovseg_demo.settings import Settings

if __name__ == "__main__":
    import_gradio()  # before the modules of the page do
    from ovseg_demo.page.layout import launch

    try:
        launch(Settings.from_environment(os.environ))
    except OvsegError as error:
        sys.exit(str(error))
