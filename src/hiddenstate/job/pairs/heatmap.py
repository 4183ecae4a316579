"""An alignment as a heat map, in a page that needs no other file."""

from __future__ import annotations

from hiddenstate.errors import UsageError
from hiddenstate.job.pairs.model import Alignment

ENDINGS = (".html", ".json")
# Height and width of a cell in pixels; symbols stay readable up to long sentences.
CELL_PIXELS = 26


def heat_map(alignment: Alignment) -> str:
    """Return the page: source symbols across, target symbols down, the weight in colour.

    Raises UsageError where plotly is not installed.
    """
    try:
        import plotly.graph_objects as go
    except ImportError:
        raise UsageError(
            "A heat map was asked for, and the package plotly is not installed.",
            "It draws the figure.",
            "Install it (pip install 'hiddenstate[tasks]'), or write the weights: --alignment "
            "FILE.json",
        ) from None
    shape = alignment.weights.shape
    rows = [f"{k + 1} {text}" for k, text in enumerate(alignment.target)]
    columns = [f"{k + 1} {text}" for k, text in enumerate(alignment.source)]
    figure = go.Figure(
        go.Heatmap(
            z=alignment.weights.tolist(),
            # Positions, not texts, since a symbol may come twice.
            customdata=[[[one, other] for other in columns] for one in rows],
            hovertemplate="%{customdata[0]} looks at %{customdata[1]}: %{z:.3f}<extra></extra>",
            colorscale="Blues",
            zmin=0.0,
            zmax=1.0,
            colorbar={"title": "weight"},
        )
    )
    figure.update_xaxes(
        title="source", side="top", tickvals=list(range(shape[1])), ticktext=alignment.source
    )
    figure.update_yaxes(
        title="target",
        autorange="reversed",
        tickvals=list(range(shape[0])),
        ticktext=alignment.target,
    )
    figure.update_layout(
        template="plotly_white",
        width=260 + CELL_PIXELS * shape[1],
        height=220 + CELL_PIXELS * shape[0],
    )
    return str(figure.to_html(include_plotlyjs=True))
