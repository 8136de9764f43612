"""A page in one HTML file that needs no other: tables to sort and filter, and charts that answer to the pointer."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import altair as alt
import jinja2
import numpy as np
import pandas as pd
import vl_convert

from mnist_exp.evaluation.plots import INK, MUTED, shorten_all

NUMBERED = 12  # classes up to which the counts are written into a confusion matrix
LETTERS = 12  # of a class beside an axis
SCALE = 2.0  # of pictures: pixels for each pixel of the page

alt.data_transformers.disable_max_rows()


@dataclass(frozen=True)
class Chart:
    """A chart below its title. note: a sentence on how to read it."""

    title: str
    drawing: Any  # any kind of chart of Altair
    note: str = ""

    @cached_property
    def spec(self) -> dict[str, Any]:
        """The chart as Vega-Lite."""
        return specify(self.drawing)


def render(template: Path, charts: Sequence[Chart], **facts: Any) -> str:
    """Returns the page of a template that extends `page.html`. facts: its variables, which are escaped."""
    folders = jinja2.FileSystemLoader([template.parent, Path(__file__).parent])
    environment = jinja2.Environment(loader=folders, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    library = _library() if charts else ""
    return environment.get_template(template.name).render(charts=charts, library=library, **facts)


def draw(path: Path, spec: Mapping[str, Any]) -> None:
    """Draws a chart into a picture. Raises ValueError if its suffix is not .png, .svg, .pdf or .jpg, and OSError.

    spec: as Vega-Lite.
    """
    text, suffix = json.dumps(spec), path.suffix.lower()
    if suffix == ".svg":
        path.write_text(vl_convert.vegalite_to_svg(text), encoding="utf-8")
    elif suffix == ".pdf":
        path.write_bytes(vl_convert.vegalite_to_pdf(text))
    elif suffix == ".png":
        path.write_bytes(vl_convert.vegalite_to_png(text, scale=SCALE))
    elif suffix in (".jpg", ".jpeg"):
        path.write_bytes(vl_convert.vegalite_to_jpeg(text, scale=SCALE))
    else:
        raise ValueError("the suffix must be .png, .svg, .pdf or .jpg")


def draw_confusion(title: str | list[str], counts: np.ndarray, class_names: Sequence[str]) -> Any:
    """Draws a confusion matrix of shape (true, predicted). Rare confusions are visible, too."""
    dark = float(counts.max()) * 0.4
    ink = alt.condition(alt.datum.images > dark, alt.value("white"), alt.value(INK))
    colour = alt.Color("images:Q", legend=None, scale=alt.Scale(scheme="blues", type="sqrt"))
    return draw_cells(title, counts, class_names, colour, "images", ink)


def draw_cells(
    title: str | list[str], values: np.ndarray, class_names: Sequence[str], colour: alt.Color, name: str, ink: Any,
    form: str = "d",
) -> Any:  # fmt: skip
    """Draws a matrix of true and predicted classes, without the cells that are 0.

    name: what the values are. ink: the colour of the numbers. form: how they are written.
    """
    short = shorten_all(class_names, LETTERS)
    classes = alt.Scale(domain=short)
    cells = [
        {"true": short[row], "predicted": short[column], name: values[row, column].item()}
        for row, column in np.argwhere(values)
    ]
    base = alt.Chart(pd.DataFrame(cells, columns=["true", "predicted", name])).encode(
        x=alt.X("predicted:N", scale=classes, axis=alt.Axis(labelAngle=-45 if max(map(len, short)) > 2 else 0)),
        y=alt.Y("true:N", scale=classes),
        tooltip=["true:N", "predicted:N", alt.Tooltip(f"{name}:Q", format=form)],
    )
    layers: list[alt.Chart] = [base.mark_rect().encode(color=colour)]
    if len(short) <= NUMBERED:
        layers.append(base.mark_text(fontSize=10).encode(text=alt.Text(f"{name}:Q", format=form), color=ink))
    side = min(max(24 * len(short), 180), 280)
    return alt.layer(*layers).properties(width=side, height=side, title=heading(title))


def heading(title: str | list[str]) -> alt.TitleParams:
    """Returns the title of one of several panels; a list has its lines."""
    return alt.TitleParams(title, fontSize=12, anchor="start", color=INK)


def specify(drawing: Any) -> dict[str, Any]:
    """Returns a chart as Vega-Lite, in the look that all charts share.

    Altair does not check it: that takes as long as everything else, and the tests do it.
    """
    finished = (
        drawing.configure(font="system-ui, sans-serif", background="white")
        .configure_view(stroke=None)
        .configure_axis(
            labelColor=MUTED, titleColor=INK, gridColor="#eeeeee", domainColor="#cccccc", titleFontWeight="normal"
        )
    )
    return dict(finished.to_dict(validate=False))


def _library() -> str:
    """Vega, Vega-Lite and Vega-Embed, as one script."""
    return str(vl_convert.javascript_bundle()).replace("</script", "<\\/script")  # type: ignore[call-arg]  # its stub
