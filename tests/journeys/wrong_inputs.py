"""Wrong inputs: the command each is given to and what must be said.

`python -m benchmarks.wrong_inputs` writes the messages to docs/results/wrong_inputs.md; the tests
run the same list.
"""

from __future__ import annotations

from tests.journeys.wrong_artifacts import ARTIFACTS
from tests.journeys.wrong_files import FILES
from tests.journeys.wrong_labels import LABELS
from tests.journeys.wrong_series import SERIES
from tests.journeys.wrong_settings import SETTINGS
from tests.journeys.wrong_text import TEXTS

GROUPS = {
    "Files": FILES,
    "Settings": SETTINGS,
    "Models": ARTIFACTS,
    "Texts": TEXTS,
    "Series": SERIES,
    "Labelled sequences": LABELS,
}
WRONG = tuple(wrong for group in GROUPS.values() for wrong in group)
