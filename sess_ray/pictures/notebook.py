"""How a notebook shows a map: the image under the colours of its map, and a caption."""

from __future__ import annotations

import html
import io
from base64 import b64encode
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from sess_ray.errors import SessError
from sess_ray.pictures.overlay import OPACITY, blend, colours

SIDE = 320  # of a picture, in pixels


@dataclass(frozen=True)
class Html:
    """A piece of HTML that a notebook shows as such."""

    text: str

    def _repr_html_(self) -> str:
        return self.text


def figure(saliency: np.ndarray, image: np.ndarray | None, title: str, *lines: str, opacity: float = OPACITY) -> str:
    """Return a map as an HTML figure that needs nothing else.

    Parameters
    ----------
    saliency : ndarray, (H, W) in 0..1
    image : ndarray, (H, W, 3) uint8, or None
        If it is None, only the map is shown.
    title : str
    *lines : str
        Further lines of the caption. Markup in them is shown as text.
    opacity : float
        How much of the map covers the image, 0 to 1.
    """
    picture = colours(saliency) if image is None else blend(image, saliency, opacity)
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, format="JPEG", quality=88)
    source = f"data:image/jpeg;base64,{b64encode(buffer.getvalue()).decode()}"
    caption = "<br>".join([f"<b>{html.escape(title)}</b>", *map(html.escape, lines)])
    return (
        f'<figure style="display: inline-block; margin: 0 1em 1em 0; max-width: {SIDE}px; vertical-align: top">'
        f'<img src="{source}" alt="{html.escape(title)}" style="display: block; max-width: 100%">'
        f'<figcaption style="overflow-wrap: anywhere">{caption}</figcaption></figure>'
    )


def several(figures: Iterable[str], title: str) -> str:
    """Return figures side by side, below a title."""
    return f"<div><p>{html.escape(title)}</p>{''.join(figures)}</div>"


def sliders(count: int, draw: Callable[[int, float], str]) -> Any:
    """Return a slider for maps and one for their opacity, above the drawn map.

    Parameters
    ----------
    count : int
        Number of maps.
    draw : callable
        Takes the number of a map, from 0, and an opacity, and returns HTML.

    Returns
    -------
    ipywidgets.VBox

    Raises
    ------
    SessError
        If ipywidgets is not installed.
    """
    try:
        import ipywidgets
    except ImportError as error:
        raise SessError("sliders need ipywidgets: pip install ipywidgets; sess_ray.show does without") from error
    number = ipywidgets.IntSlider(min=0, max=count - 1, description="map", continuous_update=False)
    opacity = ipywidgets.FloatSlider(value=OPACITY, min=0, max=1, step=0.05, description="opacity")
    shown = ipywidgets.HTML(draw(0, OPACITY))

    def again(_: object) -> None:
        shown.value = draw(number.value, opacity.value)

    for slider in (number, opacity):
        slider.observe(again, "value")
    return ipywidgets.VBox([ipywidgets.HBox([number, opacity]), shown])
