"""A widget in a notebook's output: the live view, and after it a static image.

The page hides the image while the live view is there. The image is for saved notebooks and for pages that
cannot run widgets.
"""

from __future__ import annotations

import base64
import sys
import weakref
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Display", "close_older", "image_bundle"]


_HIDING_STYLE = (
    "<style>.jp-OutputArea-child:not(:has(.ls-root)):has(+ .jp-OutputArea-child "
    'img[width="{width}"]) {{ display: none; }}</style>'
)
"""Hides the notice that a widget is missing, where its image is shown."""


class _Closable(Protocol):
    def close(self, *, leave_image: bool = True) -> None:
        """Close the widget, and leave its image in the output if asked."""


def image_bundle(png: bytes, width: int, text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return data and metadata of an image by MIME type; `width` is that at which it is shown, in pixels."""
    data = {"image/png": base64.b64encode(png).decode("ascii"), "text/plain": text}
    return data, {"image/png": {"width": width}}


class Display:
    """The outputs of one widget.

    Parameters
    ----------
    name : str
        An id of these outputs in the notebook.

    Attributes
    ----------
    shown : bool
        Whether the widget was displayed.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.shown = False

    def show(
        self,
        view: Mapping[str, Any],
        metadata: Mapping[str, Any],
        image: tuple[dict[str, Any], dict[str, Any]] | None,
    ) -> None:
        """Display the live view, and after it the image, if the widget has one."""
        from IPython.display import display

        data = {name: value for name, value in view.items() if name != "text/plain"}
        if image is not None:
            style = _HIDING_STYLE.format(width=image[1]["image/png"]["width"])
            display({"text/html": style}, raw=True)  # type: ignore[no-untyped-call]
        display(data, metadata=dict(metadata), raw=True, display_id=f"{self._name}-view")  # type: ignore[no-untyped-call]
        if image is not None:
            display(image[0], metadata=image[1], raw=True, display_id=self._name)  # type: ignore[no-untyped-call]
        self.shown = True

    def replace_image(self, image: tuple[dict[str, Any], dict[str, Any]] | None) -> None:
        """Put another image in the place of the last; none for a page that shows both."""
        self._update(self._name, image or ({"text/plain": ""}, {}))

    def remove_view(self) -> None:
        """Take the live view out of the notebook."""
        self._update(f"{self._name}-view", ({"text/plain": ""}, {}))

    def _update(self, display_id: str, output: tuple[dict[str, Any], dict[str, Any]]) -> None:
        from IPython import get_ipython
        from IPython.display import update_display

        if self.shown and get_ipython() is not None and not sys.is_finalizing():
            update_display(output[0], metadata=output[1], raw=True, display_id=display_id)  # type: ignore[no-untyped-call]


_cell_of: weakref.WeakKeyDictionary[_Closable, str] = weakref.WeakKeyDictionary()
"""The cell, and the run of it, that displayed each widget."""


def close_older(widget: _Closable) -> None:
    """Close the widget that the same cell displayed before, so that a cell can be run again."""
    from IPython import get_ipython

    shell = get_ipython()
    parent: dict[str, Any] = getattr(shell, "get_parent", dict)() if shell is not None else {}
    cell = (parent.get("metadata") or {}).get("cellId")
    if cell is None:
        return
    run = f"{cell} {parent['header']['msg_id']}"
    for other, its_run in list(_cell_of.items()):
        if its_run.startswith(f"{cell} ") and its_run != run:
            del _cell_of[other]
            other.close(leave_image=False)  # its output is gone
    _cell_of[widget] = run
