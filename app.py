"""What Spaces and `python app.py` start: settings, page, launch."""

from __future__ import annotations

import os

from ovseg_demo.page.layout import launch
from ovseg_demo.settings import Settings

if __name__ == "__main__":
    launch(Settings.from_environment(os.environ))
